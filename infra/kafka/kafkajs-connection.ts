/**
 * A connection of kafkajs 2.2.4 that was cut within an answer, and made again, takes what it had of that answer for the beginning of the
 * next: garbage from then on, a process that ends with an uncaught `RangeError`, or requests that wait for their time-out.
 */
import { createRequire } from 'node:module';
import type { Socket } from 'node:net';

interface Connection {
  chunks: Buffer[];
  bytesBuffered: number;
  bytesNeeded: number;
  readonly socket: Socket | null;
  authenticatedAt: unknown;
  connectionStatus: string;
  readonly requestQueue: {
    readonly pending: { readonly length: number };
    readonly inflight: { readonly size: number };
    destroy(): void;
  };
  isConnected(): boolean;
  connect(): Promise<unknown>;
  disconnect(): Promise<unknown>;
  processData(data: Buffer): void;
  rejectRequests(error: Error): void;
}

/** An answer's length, before it. */
const LENGTH_BYTES = 4;

let patched = false;

/** Every connection begins with nothing, and one whose bytes are no answers is cut. Once a process. */
export function patchConnections(): void {
  if (patched) return;
  patched = true;
  const load = createRequire(import.meta.url);
  const { prototype } = load('kafkajs/src/network/connection.js') as { readonly prototype: Connection };
  const { KafkaJSConnectionError } = load('kafkajs/src/errors.js') as {
    readonly KafkaJSConnectionError: new (message: string) => Error;
  };
  const { connect, disconnect, processData } = prototype;
  prototype.connect = function () {
    if (!this.isConnected()) {
      this.chunks = [];
      this.bytesBuffered = 0;
      this.bytesNeeded = LENGTH_BYTES;
    }
    return connect.call(this);
  };
  prototype.disconnect = async function () {
    const { socket, requestQueue } = this;
    const idle = requestQueue.pending.length === 0 && requestQueue.inflight.size === 0;
    // While it disconnects it calls itself connected: what were asked then would be written to a closed socket (tulios/kafkajs#918).
    const done = idle ? endAtOnce(this) : await disconnect.call(this);
    // What still comes belongs to no connection that is made after this.
    socket?.removeAllListeners('data').resume();
    return done;
  };
  prototype.processData = function (data) {
    try {
      processData.call(this, data);
    } catch (cause) {
      const error = new KafkaJSConnectionError(`Connection error: what came is no answer (${(cause as Error).message})`);
      this.rejectRequests(error);
      this.disconnect().catch(() => undefined);
    }
  };
}

/** As its own `disconnect`, where no answer is waited for. */
function endAtOnce(connection: Connection): true {
  connection.authenticatedAt = null;
  connection.connectionStatus = 'disconnected';
  connection.requestQueue.destroy();
  connection.socket?.end();
  connection.socket?.unref();
  return true;
}
