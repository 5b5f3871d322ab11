/**
 * Builds a WebAssembly module instruction by instruction: a kernel then reads as its formula and needs no compiler, no binary in
 * the repository and no native build. Only what the kernels use is here (binary format: WebAssembly core specification 2.0, §5).
 *
 * An expression is the code that leaves one value; a statement leaves none.
 */
export type Expression = readonly number[];
export type Statement = readonly number[];

const TYPES = { i32: 0x7f, v128: 0x7b } as const;
type LocalType = keyof typeof TYPES;

const unary =
  (...code: number[]) =>
  (a: Expression): Expression => [...a, ...code];
const binary =
  (...code: number[]) =>
  (a: Expression, b: Expression): Expression => [...a, ...b, ...code];
/** SIMD instructions are `0xfd` and a number. */
const simd = (code: number): number[] => [0xfd, ...unsigned(code)];

export const i32 = {
  const: (value: number): Expression => [0x41, ...signed(value)],
  load: (address: Expression, offset = 0): Expression => [...address, 0x28, 0, ...unsigned(offset)],
  add: binary(0x6a),
  sub: binary(0x6b),
  mul: binary(0x6c),
  lessThan: binary(0x49),
  select: (a: Expression, b: Expression, condition: Expression): Expression => [...a, ...b, ...condition, 0x1b],
};

export const f32x4 = {
  /** Four times the same number. */
  const: (value: number): Expression => {
    const bytes = new Uint8Array(Float32Array.of(value, value, value, value).buffer);
    return [...simd(12), ...bytes];
  },
  load: (address: Expression, offset = 0): Expression => [...address, ...simd(0), 0, ...unsigned(offset)],
  /** Four times the number at an address. */
  loadSplat: (address: Expression, offset = 0): Expression => [...address, ...simd(9), 0, ...unsigned(offset)],
  store: (address: Expression, value: Expression, offset = 0): Statement => [
    ...address,
    ...value,
    ...simd(11),
    0,
    ...unsigned(offset),
  ],
  /** Lanes of two vectors: 0 … 3 of the first, 4 … 7 of the second. */
  shuffle: (a: Expression, b: Expression, lanes: readonly number[]): Expression => [
    ...a,
    ...b,
    ...simd(13),
    ...lanes.flatMap((lane) => [0, 1, 2, 3].map((byte) => 4 * lane + byte)),
  ],
  add: binary(...simd(228)),
  sub: binary(...simd(229)),
  mul: binary(...simd(230)),
  div: binary(...simd(231)),
  /** The lesser and the greater by one comparison, which takes `a` where one is no number. */
  lesser: binary(...simd(234)),
  greater: binary(...simd(235)),
  /** `a * b + c`, rounded once where the processor can: relaxed SIMD (https://github.com/WebAssembly/relaxed-simd). */
  relaxedMultiplyAdd: (a: Expression, b: Expression, c: Expression): Expression => [...a, ...b, ...c, ...simd(0x105)],
  negate: unary(...simd(225)),
};

export const i32x4 = {
  /** Four times the same integer. */
  const: (value: number): Expression => [...simd(12), ...new Uint8Array(Int32Array.of(value, value, value, value).buffer)],
  and: binary(...simd(78)),
  shiftLeft: (a: Expression, bits: number): Expression => [...a, ...i32.const(bits), ...simd(171)],
  add: binary(...simd(174)),
};

/** A local variable of a function. */
export class Local {
  readonly get: Expression;
  readonly #index: number;

  constructor(index: number) {
    this.#index = index;
    this.get = [0x20, ...unsigned(index)];
  }

  set(value: Expression): Statement {
    return [...value, 0x21, ...unsigned(this.#index)];
  }

  increase(by: Expression): Statement {
    return this.set(i32.add(this.get, by));
  }
}

/** Runs the body while the condition holds. */
export const repeatWhile = (condition: Expression, ...body: Statement[]): Statement => [
  ...[0x03, 0x40], // loop
  ...when(condition, ...body, [0x0c, 1]), // br to the loop
  0x0b,
];

export const when = (condition: Expression, ...body: Statement[]): Statement => [
  ...condition,
  ...[0x04, 0x40], // if
  ...body.flat(),
  0x0b,
];

/** `N` of them, where `N` is a literal. */
type Locals<N extends number, L extends Local[] = []> = number extends N
  ? Local[]
  : L['length'] extends N
    ? L
    : Locals<N, [...L, Local]>;

/** One function over i32 parameters, which returns nothing. */
export class FunctionBuilder {
  readonly parameters: readonly Local[];
  readonly #locals: LocalType[] = [];

  constructor(parameterCount: number) {
    this.parameters = Array.from({ length: parameterCount }, (_, i) => new Local(i));
  }

  local(type: LocalType): Local {
    this.#locals.push(type);
    return new Local(this.parameters.length + this.#locals.length - 1);
  }

  locals<N extends number>(type: LocalType, count: N): Locals<N> {
    return Array.from({ length: count }, () => this.local(type)) as never;
  }

  code(body: readonly Statement[]): number[] {
    const locals = vector(this.#locals.map((type) => [1, TYPES[type]]));
    return sized([...locals, ...body.flat(), 0x0b]);
  }
}

interface FunctionCode {
  readonly name: string;
  readonly parameters: number;
  readonly code: readonly number[];
}

/** A module whose memory is imported as `env.memory`. */
export class ModuleBuilder {
  readonly #functions: FunctionCode[] = [];

  /**
   * @param more parameters beyond the first few, for functions that take some for each of several rows
   * @returns what calls it
   */
  func<N extends number>(
    name: string,
    parameters: N,
    body: (f: FunctionBuilder, ...parameters: [...Locals<N>, ...Local[]]) => readonly Statement[],
    more = 0,
  ): (...args: Expression[]) => Statement {
    const f = new FunctionBuilder(parameters + more);
    const index = this.#functions.length;
    const code = f.code(body(f, ...(f.parameters as [...Locals<N>, ...Local[]])));
    this.#functions.push({ parameters: parameters + more, code, name });
    return (...args) => [...args.flat(), 0x10, ...unsigned(index)];
  }

  build(): Uint8Array<ArrayBuffer> {
    const of = <T>(part: (f: FunctionCode, i: number) => T): T[] => this.#functions.map(part);
    return Uint8Array.from([
      ...[0x00, 0x61, 0x73, 0x6d, 1, 0, 0, 0],
      ...section(1, vector(of(({ parameters }) => [0x60, ...vector(Array.from({ length: parameters }, () => [TYPES.i32])), 0]))),
      ...section(2, vector([[...text('env'), ...text('memory'), 2, 0, 0]])),
      ...section(3, vector(of((_, i) => unsigned(i)))),
      ...section(7, vector(of(({ name }, i) => [...text(name), 0, ...unsigned(i)]))),
      ...section(10, vector(of(({ code }) => code))),
    ]);
  }
}

const section = (id: number, content: readonly number[]): number[] => [id, ...sized(content)];
const sized = (content: readonly number[]): number[] => [...unsigned(content.length), ...content];
const vector = (items: readonly (readonly number[])[]): number[] => [...unsigned(items.length), ...items.flat()];
const text = (value: string): number[] => sized([...new TextEncoder().encode(value)]);

/** LEB128. */
function unsigned(value: number): number[] {
  const bytes: number[] = [];
  for (; value >= 0x80; value = Math.floor(value / 0x80)) bytes.push((value % 0x80) | 0x80);
  return [...bytes, value];
}

function signed(value: number): number[] {
  const bytes: number[] = [];
  for (;;) {
    const byte = value & 0x7f;
    value >>= 7;
    const done = (value === 0 && (byte & 0x40) === 0) || (value === -1 && (byte & 0x40) !== 0);
    bytes.push(done ? byte : byte | 0x80);
    if (done) return bytes;
  }
}
