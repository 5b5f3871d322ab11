/**
 * The GPU as this project may use it. The runtime's tensors on a GPU have edges that end the process or give garbage without a
 * word: reading one back aborts, freeing one after its session crashes, feeding one to a session of another provider reads
 * foreign memory, forgetting one leaks. So they never leave this file: others hold a `GpuBuffer`, which can only be bound.
 */
import { InferenceSession, Tensor } from 'onnxruntime-node';
import { messageOf } from '../../schemas/errors.ts';
import { zerosGraph } from './graphs.ts';
import { plainReason } from './plain-reason.ts';

/** The device failed: lost, out of memory, or absent. Whatever was asked can be asked of the CPU. */
export class GpuFailure extends Error {
  override readonly name = 'GpuFailure';
}

const OPTIONS: InferenceSession.SessionOptions = {
  executionProviders: ['webgpu'],
  intraOpNumThreads: 1,
  interOpNumThreads: 1,
  logSeverityLevel: 3,
};

/** Of a buffer, for this file alone. */
let bufferOf: (tensor: Tensor) => GpuBuffer;
let tensorOf: (buffer: GpuBuffer) => Tensor | undefined;
let free: (buffer: GpuBuffer) => void;

/** Memory on the device. It has no way to be read: rows come back by a session that gathers them. */
export class GpuBuffer {
  readonly bytes: number;
  #tensor: Tensor | undefined;

  private constructor(tensor: Tensor) {
    this.bytes = 4 * tensor.size;
    this.#tensor = tensor;
  }

  static {
    bufferOf = (tensor) => new GpuBuffer(tensor);
    tensorOf = (buffer) => buffer.#tensor;
    free = (buffer) => {
      buffer.#tensor?.dispose();
      buffer.#tensor = undefined;
    };
  }
}

/** A graph on the device. Outputs come back to the host, except those written in place into a buffer that is bound. */
export interface GpuSession {
  /**
   * @param feeds from the host, copied to the device: counted
   * @param bound buffers by the input they enter as
   * @param inPlace by output, the input whose buffer it is written to: the rows it does not write keep their values
   * @throws GpuFailure
   */
  run(
    feeds: Readonly<Record<string, Tensor>>,
    bound: Readonly<Record<string, GpuBuffer>>,
    inPlace: Readonly<Record<string, string>>,
    outputs: readonly string[],
  ): Promise<Readonly<Record<string, Tensor>>>;
}

/** All sessions and buffers of one engine. Engines of one thread share the device; two threads may not. */
export class GpuDevice {
  readonly #buffers = new Set<GpuBuffer>();
  readonly #sessions: InferenceSession[] = [];
  #maker: Promise<InferenceSession> | undefined;
  #failure: string | undefined;
  #bytesUploaded = 0;

  /** Host memory copied to the device since the start. */
  get bytesUploaded(): number {
    return this.#bytesUploaded;
  }

  /** Of all buffers. */
  get bytesHeld(): number {
    return [...this.#buffers].reduce((bytes, buffer) => bytes + buffer.bytes, 0);
  }

  session(graph: Uint8Array): Promise<GpuSession> {
    return this.#guarded('a session', async () => {
      const session = await InferenceSession.create(graph, OPTIONS);
      this.#sessions.push(session);
      return { run: (...run) => this.#guarded('a run', () => this.#run(session, ...run)) };
    });
  }

  /** A buffer of zeros `(rows, width)`, on the device until `release`. */
  zeros(rows: number, width: number): Promise<GpuBuffer> {
    return this.#guarded('a buffer', async () => {
      this.#maker ??= this.#createMaker();
      const shape = new Tensor('int64', BigInt64Array.of(BigInt(rows), BigInt(width)), [2]);
      const [tensor] = Object.values(await (await this.#maker).run({ shape }));
      const buffer = bufferOf(tensor!);
      this.#buffers.add(buffer);
      return buffer;
    });
  }

  /** Buffers first: one that outlives the session that made it crashes the process. */
  async release(): Promise<void> {
    this.#failure ??= 'it has been released';
    for (const buffer of this.#buffers) free(buffer);
    this.#buffers.clear();
    for (const session of this.#sessions.splice(0)) await session.release();
  }

  /** From now on every use fails, as when the driver resets. For fault tests. */
  lose(): void {
    this.#failure = 'lost on purpose';
  }

  /** Only a session that keeps its outputs on the device makes a buffer; and only one that does not writes to one that it is given. */
  async #createMaker(): Promise<InferenceSession> {
    const session = await InferenceSession.create(zerosGraph(), { ...OPTIONS, preferredOutputLocation: 'gpu-buffer' });
    this.#sessions.push(session);
    return session;
  }

  async #run(
    session: InferenceSession,
    feeds: Readonly<Record<string, Tensor>>,
    bound: Readonly<Record<string, GpuBuffer>>,
    inPlace: Readonly<Record<string, string>>,
    outputs: readonly string[],
  ): Promise<Readonly<Record<string, Tensor>>> {
    const inputs: Record<string, Tensor> = { ...feeds };
    for (const feed of Object.values(feeds)) this.#bytesUploaded += bytesOf(feed);
    for (const [name, buffer] of Object.entries(bound)) {
      const tensor = this.#buffers.has(buffer) ? tensorOf(buffer) : undefined;
      if (tensor === undefined) throw new Error(`${name} is bound to a buffer that this device does not have, or no longer`);
      inputs[name] = tensor;
    }
    const fetches: Record<string, Tensor | null> = {};
    for (const name of outputs) fetches[name] = null;
    for (const [output, input] of Object.entries(inPlace)) fetches[output] = inputs[input]!;
    const fetched = await session.run(inputs, fetches);
    return Object.fromEntries(outputs.map((name) => [name, fetched[name]!]));
  }

  async #guarded<T>(what: string, work: () => Promise<T>): Promise<T> {
    if (this.#failure !== undefined) throw new GpuFailure(`${what} of the GPU: ${this.#failure}`);
    try {
      return await work();
    } catch (cause) {
      // After one failure nothing on the device can be trusted, least of all rows that were half written.
      this.#failure = plainReason(messageOf(cause));
      throw new GpuFailure(`${what} of the GPU failed: ${this.#failure}`, { cause });
    }
  }
}

const bytesOf = ({ type, size }: Tensor): number => (type === 'int64' ? 8 : 4) * size;
