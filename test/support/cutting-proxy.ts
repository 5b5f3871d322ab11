/** Stands between clients and a broker, and cuts connections in the middle of answers: a share of them, seeded. */
import { type AddressInfo, connect, createServer, type Socket } from 'node:net';

export interface CuttingProxy {
  /** `host:port` to give to clients. */
  readonly address: string;
  /** Connections that were cut. */
  readonly cuts: number;
  /** Share of the answers that are cut, from now on. */
  cut(share: number): void;
  close(): Promise<void>;
}

const HOST = '127.0.0.1';

/** @param broker `host:port` of the one broker, which names itself so: the answers' address becomes the proxy's */
export async function cuttingProxy(broker: string, seed = 1): Promise<CuttingProxy> {
  const backend = Number(broker.split(':')[1]);
  const random = mulberry(seed);
  const sockets = new Set<Socket>();
  let share = 0;
  let cuts = 0;
  let rewrite = (data: Buffer): Buffer => data;
  const server = createServer((client) => {
    const upstream = connect({ host: HOST, port: backend });
    const end = () => {
      client.destroy();
      upstream.destroy();
    };
    for (const socket of [client, upstream]) {
      sockets.add(socket);
      socket.setNoDelay(true);
      socket.on('error', end);
      socket.on('close', () => {
        sockets.delete(socket);
        end();
      });
    }
    client.on('data', (data) => upstream.write(data));
    const answers = new Frames();
    upstream.on('data', (data) => {
      // Up to the middle of an answer, and no further.
      const cutAt = answers.starts(data).find(() => random() < share);
      if (cutAt === undefined) client.write(rewrite(data));
      else {
        cuts += 1;
        client.end(rewrite(data.subarray(0, Math.floor((cutAt + data.length) / 2))));
        upstream.destroy();
      }
    });
  });
  await new Promise<void>((resolve) => server.listen(0, HOST, resolve));
  const { port } = server.address() as AddressInfo;
  const [from, to] = [named(backend), named(port)];
  rewrite = (data) => {
    for (let at = data.indexOf(from); at >= 0; at = data.indexOf(from, at + from.length)) to.copy(data, at);
    return data;
  };
  return {
    address: `${HOST}:${port}`,
    get cuts() {
      return cuts;
    },
    cut: (wanted) => {
      share = wanted;
    },
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        for (const socket of sockets) socket.destroy();
      }),
  };
}

/** Where answers begin in a stream of them: each is its length in four bytes, and so many bytes. */
class Frames {
  /** Bytes of the answer under way that are still to come. */
  #rest = 0;
  #length = Buffer.alloc(0);

  /** Offsets in `data`, the next bytes of the stream, of the answers that begin in it. */
  starts(data: Buffer): number[] {
    const starts: number[] = [];
    let at = 0;
    while (at < data.length) {
      if (this.#rest > 0) {
        const taken = Math.min(this.#rest, data.length - at);
        this.#rest -= taken;
        at += taken;
        continue;
      }
      if (this.#length.length === 0) starts.push(at);
      const part = data.subarray(at, at + 4 - this.#length.length);
      this.#length = Buffer.concat([this.#length, part]);
      at += part.length;
      if (this.#length.length < 4) continue;
      this.#rest = this.#length.readInt32BE();
      this.#length = Buffer.alloc(0);
    }
    return starts;
  }
}

/** A broker's address as metadata has it: the host, then the port in four bytes. */
function named(port: number): Buffer {
  const bytes = Buffer.alloc(HOST.length + 4);
  bytes.write(HOST, 'latin1');
  bytes.writeInt32BE(port, HOST.length);
  return bytes;
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
