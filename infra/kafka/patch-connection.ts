/**
 * Mends how a connection of kafkajs 2.2.4 is connected again. The version is pinned; a test shows both faults without it.
 *
 * - It keeps the part of an answer that had come when it was cut, and takes the first bytes of the next connection for the rest of it: what
 *   is asked next has no answer until its time is up.
 * - It calls itself connected while it disconnects: what is asked then is written to a closed socket, and waited for (tulios/kafkajs#918).
 */
import { createRequire } from 'node:module';
import type { Socket } from 'node:net';

interface Connection {
  chunks: Buffer[];
  bytesBuffered: number;
  bytesNeeded: number;
  authenticatedAt: unknown;
  connectionStatus: string;
  readonly socket?: Pick<Socket, 'end' | 'unref'>;
  readonly requestQueue: {
    readonly pending: { readonly length: number };
    readonly inflight: { readonly size: number };
    destroy(): void;
  };
  isConnected(): boolean;
  connect(): Promise<unknown>;
  disconnect(): Promise<unknown>;
}

/** Bytes of the length before an answer. */
const LENGTH_BYTES = 4;
let patched = false;

/** Once a process. */
export function patchConnection(): void {
  if (patched) return;
  patched = true;
  const { prototype } = createRequire(import.meta.url)('kafkajs/src/network/connection.js') as { readonly prototype: Connection };
  const { connect, disconnect } = prototype;
  prototype.connect = function () {
    if (!this.isConnected()) {
      this.chunks = [];
      this.bytesBuffered = 0;
      this.bytesNeeded = LENGTH_BYTES;
    }
    return connect.call(this);
  };
  prototype.disconnect = async function () {
    const { pending, inflight } = this.requestQueue;
    if (pending.length > 0 || inflight.size > 0) return disconnect.call(this);
    // Nothing is waited for: no request can come between.
    this.authenticatedAt = null;
    this.connectionStatus = 'disconnected';
    this.requestQueue.destroy();
    this.socket?.end();
    this.socket?.unref();
    return true;
  };
}
