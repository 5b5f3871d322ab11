import onnxProto from 'onnx-proto';
import { InferenceSession, Tensor } from 'onnxruntime-node';
import { describe, expect, it } from 'vitest';
import { GraphBuilder } from '../../../models/onnx/graph-builder.ts';

/** `y = relu(x @ w + 1)` and its two halves. */
function small(): Uint8Array {
  const g = new GraphBuilder('small');
  const x = g.input('x', 'float32', ['B', 3]);
  const w = g.float(Float32Array.of(1, 0, 2, 0, 1, 0, 1, 1, 1, 0, 0, -9), [3, 4], 'w');
  const y = g.op('Relu', [g.op('Add', [g.op('MatMul', [x, w]), g.scalar(1)])]);
  const [left, right] = g.ops('Split', [y, g.ints([1, 3])], 2, { axis: 1 });
  g.output('y', y, 'float32', ['B', 4]);
  g.output('left', left!, 'float32', ['B', 1]);
  g.output('right', right!, 'float32', ['B', 3]);
  g.output('sum', g.op('ReduceSum', [y, g.ints([1])], { keepdims: 0 }), 'float32', ['B']);
  return g.build();
}

describe('GraphBuilder', () => {
  it('builds what the runtime computes', async () => {
    const session = await InferenceSession.create(small());
    expect(session.inputNames).toEqual(['x']);
    expect([...session.outputNames].sort()).toEqual(['left', 'right', 'sum', 'y']);
    const out = await session.run({ x: new Tensor('float32', Float32Array.of(1, 2, 3, 0, 0, 1), [2, 3]) });
    const values = (name: string) => [out[name]!.dims, [...(out[name]!.data as Float32Array)]];
    expect(values('y')).toEqual([
      [2, 4],
      [7, 1, 5, 0, 2, 1, 1, 0],
    ]);
    expect(values('left')).toEqual([
      [2, 1],
      [7, 2],
    ]);
    expect(values('right')).toEqual([
      [2, 3],
      [1, 5, 0, 1, 1, 0],
    ]);
    expect(values('sum')).toEqual([[2], [13, 4]]);
    await session.release();
  });

  it('writes a model that reads back: names, constants, attributes, shapes with symbols', () => {
    const model = onnxProto.onnx.ModelProto.decode(small());
    expect(model.opsetImport.map(({ domain, version }) => [domain ?? '', Number(version)])).toEqual([
      ['', 20],
      ['com.microsoft', 1],
    ]);
    const graph = model.graph!;
    expect(graph.name).toBe('small');
    expect(graph.node!.map(({ opType }) => opType)).toEqual([
      'MatMul',
      'Add',
      'Relu',
      'Split',
      'Identity',
      'Identity',
      'Identity',
      'ReduceSum',
      'Identity',
    ]);
    const shape = graph.input![0]!.type!.tensorType!.shape!.dim!;
    expect([shape[0]!.dimParam, Number(shape[1]!.dimValue)]).toEqual(['B', 3]);
    const w = graph.initializer!.find(({ name }) => name === 'w')!;
    expect(w.dims!.map(Number)).toEqual([3, 4]);
    expect(w.rawData).toHaveLength(48);
    expect(graph.node![3]!.attribute!.map(({ name, i }) => [name, Number(i)])).toEqual([['axis', 1]]);
  });

  it('stores equal vectors of integers once, and writes the same bytes for the same graph', () => {
    const g = new GraphBuilder('ints');
    expect(g.ints([1, -1])).toBe(g.ints([1, -1]));
    expect(g.ints([1])).not.toBe(g.ints([1, -1]));
    expect(small()).toEqual(small());
  });

  it('takes numbers, lists and floats as attributes, and operators of the runtime', async () => {
    const g = new GraphBuilder('attributes');
    const x = g.input('x', 'float32', [1, 2]);
    const turned = g.op('Transpose', [x], { perm: [1, 0] });
    g.output('y', g.op('QuickGelu', [turned], { alpha: { float: 1 } }, 'com.microsoft'), 'float32', [2, 1]);
    const session = await InferenceSession.create(g.build());
    const { y } = await session.run({ x: new Tensor('float32', Float32Array.of(1, -2), [1, 2]) });
    expect(y!.dims).toEqual([2, 1]);
    const silu = (value: number) => value / (1 + Math.exp(-value));
    for (const [i, value] of [1, -2].entries()) expect((y!.data as Float32Array)[i]).toBeCloseTo(silu(value), 6);
    await session.release();
  });
});
