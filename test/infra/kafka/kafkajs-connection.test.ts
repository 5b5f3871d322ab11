/** A connection of kafkajs that is cut in the middle of an answer: what is asked by the next one is answered. */
import { createRequire } from 'node:module';
import { type AddressInfo, createServer, type Socket } from 'node:net';
import { afterEach, describe, expect, it } from 'vitest';
import { patchConnections } from '../../../infra/kafka/kafkajs-connection.ts';

const require = createRequire(import.meta.url);
const LoggerOf = require('kafkajs/src/loggers/index.js') as { createLogger: (o: object) => unknown; LEVELS: { NOTHING: number } };
const Encoder = require('kafkajs/src/protocol/encoder.js') as new () => object;
const { ConnectionClass } = { ConnectionClass: require('kafkajs/src/network/connection.js') as new (o: object) => Connection };

interface Connection {
  connect(): Promise<unknown>;
  disconnect(): Promise<unknown>;
  isConnected(): boolean;
  send(protocol: object): Promise<Buffer>;
}

const answer = (correlationId: number, body: string): Buffer => {
  const bytes = Buffer.alloc(8 + body.length);
  bytes.writeInt32BE(4 + body.length, 0);
  bytes.writeInt32BE(correlationId, 4);
  bytes.write(body, 8, 'latin1');
  return bytes;
};
const asking = {
  request: { apiKey: 18, apiVersion: 0, apiName: 'ApiVersions', encode: async () => new Encoder() },
  response: { decode: async (payload: Buffer) => payload, parse: async (payload: Buffer) => payload },
};

const closing: (() => void)[] = [];
afterEach(() => {
  for (const close of closing.splice(0)) close();
});

async function connectionTo(serve: (socket: Socket, nth: number) => void): Promise<Connection> {
  let nth = 0;
  const server = createServer((socket) => {
    const mine = nth++;
    socket.on('error', () => undefined);
    socket.once('data', () => serve(socket, mine));
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  closing.push(() => server.close());
  return new ConnectionClass({
    host: '127.0.0.1',
    port: (server.address() as AddressInfo).port,
    logger: (LoggerOf.createLogger as (o: object) => unknown)({
      level: LoggerOf.LEVELS.NOTHING,
      logCreator: () => () => undefined,
    }),
    socketFactory: (require('kafkajs/src/network/socketFactory.js') as () => unknown)(),
    requestTimeout: 2_000,
    enforceRequestTimeout: true,
    connectionTimeout: 1_000,
    clientId: 'test',
  });
}

describe('a connection of kafkajs', () => {
  it('that was cut in the middle of an answer forgets the half of it', async () => {
    patchConnections();
    const connection = await connectionTo((socket, nth) => {
      if (nth === 0) socket.end(answer(0, 'an answer of some length').subarray(0, 12));
      else socket.write(answer(nth, 'whole'));
    });
    await connection.connect();
    await expect(connection.send(asking)).rejects.toThrow('Closed connection');
    expect(connection.isConnected()).toBe(false);
    await connection.connect();
    expect((await connection.send(asking)).toString()).toBe('whole');
    await connection.disconnect();
  });

  it('that was closed takes nothing more: what is asked at once is refused, not left without an answer', async () => {
    patchConnections();
    const connection = await connectionTo((socket) => socket.end());
    await connection.connect();
    const again = connection.send(asking).catch(() => connection.send(asking));
    await expect(again).rejects.toThrow('Not connected');
  });
});
