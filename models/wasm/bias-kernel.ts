/**
 * Relative biases as WebAssembly: times are sorted, so the keys of one time bucket lie together, and a run of them is one number
 * added to a piece of the position table.
 */
import { f32x4, i32, ModuleBuilder, repeatWhile } from './module-builder.ts';

export interface BiasExports {
  /**
   * `out_j = position_j + time[bucket of j]`. Addresses are in bytes; `runs … runsEnd` holds pairs of i32: the key behind the
   * run's last, and the byte offset of its bucket in `time`. Whole vectors are written: up to three numbers behind the last
   * run's end are overwritten, and as many read behind the end of `position`.
   */
  fillBias(out: number, runs: number, runsEnd: number, position: number, time: number): void;
}

/** A module of this function alone. */
export function biasKernel(): Uint8Array<ArrayBuffer> {
  const m = new ModuleBuilder();
  fillBias(m);
  return m.build();
}

/** Adds the function. What a run writes behind its end is overwritten by the run that follows. */
export function fillBias(m: ModuleBuilder): void {
  m.func('fillBias', 5, (f, out, runs, runsEnd, position, time) => {
    const [at, end] = f.locals('i32', 2);
    const bias = f.local('v128');
    return [
      repeatWhile(
        i32.lessThan(runs.get, runsEnd.get),
        end.set(i32.mul(i32.load(runs.get), i32.const(4))),
        bias.set(f32x4.loadSplat(i32.add(time.get, i32.load(runs.get, 4)))),
        repeatWhile(
          i32.lessThan(at.get, end.get),
          f32x4.store(i32.add(out.get, at.get), f32x4.add(f32x4.load(i32.add(position.get, at.get)), bias.get)),
          at.increase(i32.const(16)),
        ),
        at.set(end.get),
        runs.increase(i32.const(8)),
      ),
    ];
  });
}
