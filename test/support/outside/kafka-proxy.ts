/** A network that misbehaves, between clients and one broker: answers late, cut or with a bit changed, requests held, nobody there. */
import { createServer, type Server, Socket } from 'node:net';

/** Numbers of Kafka's requests. */
export const API = { produce: 0, fetch: 1, metadata: 3, findCoordinator: 10, endTxn: 26, describeCluster: 60 } as const;

/** Answers that name the broker's address, which is the proxy's to its clients. */
const NAMING: ReadonlySet<number> = new Set([API.metadata, API.findCoordinator, API.describeCluster]);

export interface Hold {
  readonly api: number;
  /** Which of them, counted from 1 as they come. */
  readonly nth: readonly number[];
  readonly ms: number;
}

/** What it has done so far. */
export interface Done {
  answers: number;
  cut: number;
  flipped: number;
  held: number;
  /** Of the held, those that reached the broker in the end. */
  delivered: number;
}

export class KafkaProxy {
  /** Of every answer, ms. */
  delayMs = 0;
  /** Chance that an answer is lost with its connection: half of them after their first half. */
  cutShare = 0;
  /** In fetched data, the first bit of this one's last byte is changed; `flips` times. */
  flipAfter: Buffer | undefined;
  flips = 0;
  /** Requests that reach the broker later, whether or not the client has given up by then. */
  hold: Hold | undefined;
  readonly done: Done = { answers: 0, cut: 0, flipped: 0, held: 0, delivered: 0 };
  readonly #backend: number;
  readonly #random: () => number;
  readonly #server: Server;
  readonly #open = new Set<Socket>();
  #counted = 0;
  #away = false;

  /** @param broker `127.0.0.1:port` */
  static async open(broker: string, seed = 1): Promise<KafkaProxy> {
    const proxy = new KafkaProxy(Number(broker.split(':')[1]), seed);
    await new Promise<void>((resolve) => proxy.#server.listen(0, '127.0.0.1', resolve));
    return proxy;
  }

  private constructor(backend: number, seed: number) {
    this.#backend = backend;
    this.#random = mulberry(seed);
    this.#server = createServer((client) => this.#connect(client));
  }

  get #port(): number {
    return (this.#server.address() as { readonly port: number }).port;
  }

  /** As `kafka.brokers` of a configuration. */
  get brokers(): string[] {
    return [`127.0.0.1:${this.#port}`];
  }

  /** Lets nobody in or out any more. */
  goAway(): void {
    this.#away = true;
    for (const socket of this.#open) socket.destroy();
  }

  comeBack(): void {
    this.#away = false;
  }

  async close(): Promise<void> {
    this.goAway();
    await new Promise((resolve) => this.#server.close(resolve));
  }

  #connect(client: Socket): void {
    if (this.#away) {
      client.destroy();
      return;
    }
    const broker = new Socket().connect(this.#backend, '127.0.0.1');
    let holding = 0;
    let over = false;
    const end = () => {
      over = true;
      client.destroy();
      // What is held is delivered over a connection that its client has left.
      if (holding === 0) broker.destroy();
    };
    for (const socket of [client, broker]) {
      this.#open.add(socket);
      socket.setNoDelay(true);
      socket.on('error', () => undefined);
      socket.on('close', () => {
        this.#open.delete(socket);
        end();
      });
    }
    /** Of the requests under way, by correlation id. */
    const apis = new Map<number, number>();
    const requests = new Frames((frame) => {
      const api = frame.readInt16BE(4);
      apis.set(frame.readInt32BE(8), api);
      if (!this.#isHeld(api)) return broker.write(frame);
      this.done.held += 1;
      holding += 1;
      setTimeout(() => {
        holding -= 1;
        broker.write(frame, (error) => {
          if (!error) this.done.delivered += 1;
          // Time for the broker to act on it.
          if (over && holding === 0) setTimeout(() => broker.destroy(), 1_000);
        });
      }, this.hold!.ms);
      return true;
    });
    const answers = new Frames((frame) => {
      const api = apis.get(frame.readInt32BE(4)) ?? -1;
      apis.delete(frame.readInt32BE(4));
      this.#answer(client, frame, api, end);
    });
    client.on('data', (chunk: Buffer) => requests.push(chunk));
    broker.on('data', (chunk: Buffer) => answers.push(chunk));
  }

  #answer(client: Socket, frame: Buffer, api: number, end: () => void): void {
    this.done.answers += 1;
    if (NAMING.has(api)) this.#rename(frame);
    if (api === API.fetch) this.#flip(frame);
    const cut = this.#random() < this.cutShare;
    const send = () => {
      if (client.destroyed) return;
      if (!cut) {
        client.write(frame);
        return;
      }
      this.done.cut += 1;
      if (this.#random() < 0.5) end();
      else client.write(frame.subarray(0, frame.length >> 1), end);
    };
    if (this.delayMs > 0) setTimeout(send, this.delayMs);
    else send();
  }

  #isHeld(api: number): boolean {
    if (api !== this.hold?.api) return false;
    this.#counted += 1;
    return this.hold.nth.includes(this.#counted);
  }

  /** `127.0.0.1` and the port after it, which is as long whatever it is. */
  #rename(frame: Buffer): void {
    const address = Buffer.alloc(13, '127.0.0.1');
    address.writeInt32BE(this.#backend, 9);
    for (let at = frame.indexOf(address); at >= 0; at = frame.indexOf(address, at + 13)) frame.writeInt32BE(this.#port, at + 9);
  }

  #flip(frame: Buffer): void {
    if (this.flipAfter === undefined || this.flips <= this.done.flipped) return;
    const at = frame.indexOf(this.flipAfter);
    if (at < 0) return;
    const last = at + this.flipAfter.length - 1;
    frame[last] = frame[last]! ^ 1;
    this.done.flipped += 1;
  }
}

/** Puts together what Kafka's protocol writes: a length (int32), and so many bytes; given on with the length before it. */
class Frames {
  readonly #take: (frame: Buffer) => unknown;
  #chunks: Buffer[] = [];
  #bytes = 0;

  constructor(take: (frame: Buffer) => unknown) {
    this.#take = take;
  }

  push(chunk: Buffer): void {
    this.#chunks.push(chunk);
    this.#bytes += chunk.length;
    while (this.#bytes >= 4) {
      if (this.#chunks[0]!.length < 4) this.#join();
      const wanted = 4 + this.#chunks[0]!.readInt32BE(0);
      if (this.#bytes < wanted) return;
      const all = this.#join();
      this.#chunks = [all.subarray(wanted)];
      this.#bytes -= wanted;
      this.#take(Buffer.from(all.subarray(0, wanted)));
    }
  }

  #join(): Buffer {
    const all = this.#chunks.length === 1 ? this.#chunks[0]! : Buffer.concat(this.#chunks);
    this.#chunks = [all];
    return all;
  }
}

/** Mulberry32, public domain. */
function mulberry(seed: number): () => number {
  let state = seed | 0;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}
