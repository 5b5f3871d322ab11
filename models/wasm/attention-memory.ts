/**
 * Memory that both the attention kernel and the runtime read where it lies: WebAssembly's own, which the runtime takes as any
 * other array. One such memory ends at 4 GiB, so a larger pool is several of them, each with a kernel.
 */
import { setFlagsFromString } from 'node:v8';
import type { Bundle } from '../hstu/bundle.ts';
import { BFLOAT16_GROUP } from '../kv-cache/bfloat16.ts';
import type { KvPrecision } from '../kv-cache/extent.ts';
import type { PoolMemory } from '../kv-cache/page-pool.ts';
import { type AttentionExports, attentionKernel } from './attention-kernel.ts';
import { AttentionWorkspace, workspaceBytes } from './attention-workspace.ts';

/** What is used of the global that the compiler's library for Node does not declare. */
declare const WebAssembly: {
  readonly Memory: new (pages: { readonly initial: number; readonly maximum: number }) => { readonly buffer: ArrayBuffer };
  validate(bytes: Uint8Array<ArrayBuffer>): boolean;
  readonly Module: new (bytes: Uint8Array<ArrayBuffer>) => object;
  readonly Instance: new (
    module: object,
    imports: { readonly env: { readonly memory: object } },
  ) => { readonly exports: unknown };
};

const WASM_PAGE = 65_536;
const MAX_WASM_PAGES = 65_536;

export class AttentionMemory implements PoolMemory {
  readonly maxFloats: number;
  readonly #bundle: Bundle;
  readonly #module: object;
  readonly #workspaces = new Map<ArrayBufferLike, AttentionWorkspace>();

  /** @param precision what the rows are held in; @default 'float32' */
  constructor(bundle: Bundle, precision: KvPrecision = 'float32') {
    this.#bundle = bundle;
    this.#module = compiled(bundle, precision);
    this.maxFloats = Math.floor((MAX_WASM_PAGES * WASM_PAGE - workspaceBytes(bundle.config)) / 4);
  }

  /** Whether the kernel can compute this bundle's attention: it takes four numbers of a head at a time, or a group of those in 16 bits. */
  static serves({ config: { dqk, dv } }: Bundle, precision: KvPrecision = 'float32'): boolean {
    const group = precision === 'bfloat16' ? BFLOAT16_GROUP : 4;
    return dqk % group === 0 && dv % group === 0;
  }

  allocate(floats: number): Float32Array {
    const { config } = this.#bundle;
    const start = workspaceBytes(config);
    const pages = Math.ceil((start + 4 * floats) / WASM_PAGE);
    const memory = new WebAssembly.Memory({ initial: pages, maximum: pages });
    const { exports } = new WebAssembly.Instance(this.#module, { env: { memory } });
    this.#workspaces.set(memory.buffer, new AttentionWorkspace(this.#bundle, exports as AttentionExports, memory.buffer));
    return new Float32Array(memory.buffer, start, floats);
  }

  /** The kernel that reaches these rows; undefined for rows outside the pool. */
  reaching(rows: { readonly buffer: ArrayBufferLike }): AttentionWorkspace | undefined {
    return this.#workspaces.get(rows.buffer);
  }
}

const RELAXED_SIMD = 'experimental-wasm-relaxed-simd';

/**
 * With fused multiplication and addition where the engine has them. V8 11 (Node 20) has them behind a flag, which is on only while
 * this module is compiled; later versions have them without.
 */
function compiled({ config }: Bundle, precision: KvPrecision): object {
  const fused = attentionKernel(config, true, precision);
  if (WebAssembly.validate(fused)) return new WebAssembly.Module(fused);
  const behindFlag = process.versions.v8.startsWith('11.');
  if (behindFlag) setFlagsFromString(`--${RELAXED_SIMD}`);
  try {
    return new WebAssembly.Module(WebAssembly.validate(fused) ? fused : attentionKernel(config, false, precision));
  } finally {
    if (behindFlag) setFlagsFromString(`--no-${RELAXED_SIMD}`);
  }
}
