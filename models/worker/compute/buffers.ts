/** Buffers by name, grown when a larger run comes: a step allocates nothing of its size. */
export class Buffers {
  readonly #buffers = new Map<string, Float32Array>();

  /** `floats` numbers, whatever they were before. */
  of(name: string, floats: number): Float32Array {
    let buffer = this.#buffers.get(name);
    if (buffer === undefined || buffer.length < floats) {
      buffer = new Float32Array(floats);
      this.#buffers.set(name, buffer);
    }
    return buffer.subarray(0, floats);
  }
}
