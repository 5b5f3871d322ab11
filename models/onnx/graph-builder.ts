/**
 * Builds an ONNX graph node by node, so that a model reads as its formula and no exporter stands between the two.
 * Values are plain names; shapes may hold symbols (`'B'`), as in the ONNX specification.
 */
import onnxProto from 'onnx-proto';

const { onnx } = onnxProto;

export type ElementType = 'float32' | 'int32' | 'int64' | 'bool';
/** A value in the graph: the output of a node, an input or a constant. */
export type Value = string & { readonly __value: unique symbol };
export type Shape = readonly (number | string)[];
type Attribute = number | readonly number[] | { readonly float: number };

const TYPE_CODES: Record<ElementType, number> = {
  float32: onnx.TensorProto.DataType.FLOAT,
  int32: onnx.TensorProto.DataType.INT32,
  int64: onnx.TensorProto.DataType.INT64,
  bool: onnx.TensorProto.DataType.BOOL,
};

/** ONNX operator set: the newest that every execution provider of the runtime in use knows. */
const OPSET = 20;
const IR_VERSION = 9;
/** The runtime's own operators. */
export const MICROSOFT = 'com.microsoft';

export class GraphBuilder {
  readonly #name: string;
  readonly #nodes: InstanceType<typeof onnx.NodeProto>[] = [];
  readonly #constants: InstanceType<typeof onnx.TensorProto>[] = [];
  readonly #inputs: InstanceType<typeof onnx.ValueInfoProto>[] = [];
  readonly #outputs: InstanceType<typeof onnx.ValueInfoProto>[] = [];
  readonly #intConstants = new Map<string, Value>();
  #serial = 0;

  constructor(name: string) {
    this.#name = name;
  }

  input(name: string, type: ElementType, shape: Shape): Value {
    this.#inputs.push(valueInfo(name, type, shape));
    return name as Value;
  }

  /** A weight or a number baked into the graph. */
  float(data: Float32Array, shape: readonly number[], name = `_c${this.#serial++}`): Value {
    this.#constants.push(tensor(name, 'float32', shape, data));
    return name as Value;
  }

  scalar(value: number): Value {
    return this.float(Float32Array.of(value), []);
  }

  /** An integer vector (a shape, axes, sizes); equal vectors are stored once. */
  ints(values: readonly number[]): Value {
    const key = values.join();
    const known = this.#intConstants.get(key);
    if (known !== undefined) return known;
    const name = `_i${this.#serial++}` as Value;
    this.#constants.push(tensor(name, 'int64', [values.length], BigInt64Array.from(values, BigInt)));
    this.#intConstants.set(key, name);
    return name;
  }

  /** One node with one output. */
  op(type: string, inputs: readonly Value[], attributes: Readonly<Record<string, Attribute>> = {}, domain = ''): Value {
    return this.ops(type, inputs, 1, attributes, domain)[0]!;
  }

  /** One node with `count` outputs. */
  ops(
    type: string,
    inputs: readonly Value[],
    count: number,
    attributes: Readonly<Record<string, Attribute>> = {},
    domain = '',
  ): Value[] {
    const outputs = Array.from({ length: count }, () => `_v${this.#serial++}` as Value);
    this.#nodes.push(
      onnx.NodeProto.create({
        name: `${type}_${this.#nodes.length}`,
        opType: type,
        domain,
        input: [...inputs],
        output: outputs,
        attribute: Object.entries(attributes).map(([name, value]) => attributeProto(name, value)),
      }) as InstanceType<typeof onnx.NodeProto>,
    );
    return outputs;
  }

  output(name: string, value: Value, type: ElementType, shape: Shape): void {
    this.#nodes.push(onnx.NodeProto.create({ name: `out_${name}`, opType: 'Identity', input: [value], output: [name] }) as never);
    this.#outputs.push(valueInfo(name, type, shape));
  }

  /** The serialised `ModelProto`, as `InferenceSession.create` takes it. */
  build(): Uint8Array {
    const model = onnx.ModelProto.create({
      irVersion: IR_VERSION,
      producerName: 'hstu-streams',
      opsetImport: [
        { domain: '', version: OPSET },
        { domain: MICROSOFT, version: 1 },
      ],
      graph: { name: this.#name, node: this.#nodes, initializer: this.#constants, input: this.#inputs, output: this.#outputs },
    });
    return onnx.ModelProto.encode(model).finish();
  }
}

function tensor(name: string, type: ElementType, dims: readonly number[], data: Float32Array | BigInt64Array) {
  const rawData = new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
  return onnx.TensorProto.create({ name, dataType: TYPE_CODES[type], dims: [...dims], rawData }) as InstanceType<
    typeof onnx.TensorProto
  >;
}

function valueInfo(name: string, type: ElementType, shape: Shape) {
  const dim = shape.map((size) => (typeof size === 'number' ? { dimValue: size } : { dimParam: size }));
  const tensorType = { elemType: TYPE_CODES[type], shape: { dim } };
  return onnx.ValueInfoProto.create({ name, type: { tensorType } }) as InstanceType<typeof onnx.ValueInfoProto>;
}

function attributeProto(name: string, value: Attribute) {
  const { AttributeType } = onnx.AttributeProto;
  if (typeof value === 'number') return { name, type: AttributeType.INT, i: value };
  if ('float' in value) return { name, type: AttributeType.FLOAT, f: value.float };
  return { name, type: AttributeType.INTS, ints: [...value] };
}
