/** Thrift's compact protocol, walked without making anything of it: whether a struct is what its bytes can hold. */

/** More than any writer of Parquet nests: a schema is a flat list there. */
const MAX_DEPTH = 32;

/** Types by their number on the wire. */
const [TRUE, FALSE, BYTE, I16, I32, I64, DOUBLE, BINARY, LIST, SET, MAP, STRUCT, UUID] = [
  1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13,
];

export interface ThriftVisitor {
  /** An integer, and the field ids that lead to it, outermost first; elements of a list have their list's. */
  readonly integer: (path: readonly number[], value: bigint) => void;
  /** An element of a list of structs has been walked whole. */
  readonly element: (path: readonly number[]) => void;
}

/** @throws RangeError saying what does not fit, and where in `bytes` */
export function walkStruct(bytes: Buffer, visitor: ThriftVisitor): void {
  const walk = new Walk(bytes, visitor);
  walk.struct(0);
}

class Walk {
  readonly #bytes: Buffer;
  readonly #visitor: ThriftVisitor;
  readonly #path: number[] = [];
  #at = 0;

  constructor(bytes: Buffer, visitor: ThriftVisitor) {
    this.#bytes = bytes;
    this.#visitor = visitor;
  }

  struct(depth: number): void {
    if (depth > MAX_DEPTH) throw this.#fault(`structs nested more than ${MAX_DEPTH} deep`);
    let id = 0;
    for (;;) {
      const head = this.#byte();
      const type = head & 15;
      if (type === 0) return;
      id = head >> 4 === 0 ? Number(this.#zigzag()) : id + (head >> 4);
      this.#path.push(id);
      // In a field, a boolean's value is its type.
      if (type !== TRUE && type !== FALSE) this.#value(type, depth);
      this.#path.pop();
    }
  }

  #value(type: number, depth: number): void {
    if (type === TRUE || type === FALSE || type === BYTE) this.#skip(1);
    else if (type === I16 || type === I32 || type === I64) this.#visitor.integer(this.#path, this.#zigzag());
    else if (type === DOUBLE) this.#skip(8);
    else if (type === UUID) this.#skip(16);
    else if (type === BINARY) this.#skip(this.#count('a string', 1));
    else if (type === LIST || type === SET) this.#list(depth + 1);
    else if (type === MAP) this.#map(depth + 1);
    else if (type === STRUCT) this.struct(depth + 1);
    else throw this.#fault(`type ${type}, which there is none of`);
  }

  #list(depth: number): void {
    if (depth > MAX_DEPTH) throw this.#fault(`lists nested more than ${MAX_DEPTH} deep`);
    const head = this.#byte();
    const type = head & 15;
    const short = head >> 4;
    // No element takes less than a byte.
    const count = short === 15 ? this.#count('a list', 1) : short;
    for (let i = 0; i < count; i++) {
      this.#value(type, depth);
      if (type === STRUCT) this.#visitor.element(this.#path);
    }
  }

  #map(depth: number): void {
    if (depth > MAX_DEPTH) throw this.#fault(`maps nested more than ${MAX_DEPTH} deep`);
    const count = this.#count('a map', 2);
    if (count === 0) return;
    const types = this.#byte();
    for (let i = 0; i < count; i++) {
      this.#value(types >> 4, depth);
      this.#value(types & 15, depth);
    }
  }

  /** A count of what takes at least `least` bytes each: never more than the rest can hold. */
  #count(what: string, least: number): number {
    const count = this.#varint();
    const left = this.#bytes.length - this.#at;
    if (count * BigInt(least) > left) throw this.#fault(`${what} of ${count}, with ${left} bytes left`);
    return Number(count);
  }

  #zigzag(): bigint {
    const value = this.#varint();
    return (value >> 1n) ^ -(value & 1n);
  }

  #varint(): bigint {
    let value = 0n;
    for (let shift = 0n; shift < 70n; shift += 7n) {
      const byte = this.#byte();
      value |= BigInt(byte & 127) << shift;
      if (byte < 128) return value;
    }
    throw this.#fault('a number of more than 10 bytes');
  }

  #byte(): number {
    const byte = this.#bytes[this.#at];
    if (byte === undefined) throw this.#fault('the end, within a value');
    this.#at += 1;
    return byte;
  }

  #skip(count: number): void {
    if (this.#at + count > this.#bytes.length) throw this.#fault('the end, within a value');
    this.#at += count;
  }

  #fault(what: string): RangeError {
    return new RangeError(`at byte ${this.#at} of ${this.#bytes.length} is ${what}`);
  }
}
