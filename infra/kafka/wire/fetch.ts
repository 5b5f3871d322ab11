/** Kafka's Fetch, asked through kafkajs' connection and answered in raw bytes: a fault of one partition is that partition's. */
import { createRequire } from 'node:module';
import type { Broker } from '../kafkajs-internals.ts';

export interface FetchRequest {
  readonly isolationLevel: number;
  readonly maxWaitTime: number;
  readonly minBytes: number;
  readonly maxBytes: number;
  readonly topics: readonly {
    readonly topic: string;
    readonly partitions: readonly { readonly partition: number; readonly fetchOffset: string; readonly maxBytes: number }[];
  }[];
}

export interface FetchedPartition {
  readonly topic: string;
  readonly partition: number;
  /** Kafka's number; 0 for none. */
  readonly errorCode: number;
  readonly highWatermark: number;
  /** Up to here all transactions are decided. */
  readonly lastStableOffset: number;
  readonly abortedTransactions: readonly { readonly producerId: string; readonly firstOffset: number }[];
  /** Record batches; the last may be cut off. */
  readonly records: Buffer;
}

interface Request {
  readonly request: { readonly apiVersion: number };
  readonly response: unknown;
}

interface Internals {
  readonly lookupRequest: (apiKey: number, definition: unknown) => (request: FetchRequest) => Request;
}

const FETCH = 1;
const require = createRequire(import.meta.url);

/** @throws what kafkajs throws: of the connection, or of the answer as a whole; a partition's error is in its `errorCode` */
export async function fetchRaw(broker: Broker, request: FetchRequest): Promise<readonly FetchedPartition[]> {
  const { requests } = require('kafkajs/src/protocol/requests/index.js') as { readonly requests: { readonly Fetch: unknown } };
  const asked = (broker as unknown as Internals).lookupRequest(FETCH, requests.Fetch)(request);
  const version = asked.request.apiVersion;
  const response = {
    decode: (bytes: Buffer) => Promise.resolve(readAnswer(bytes, version)),
    parse: (answer: Answer) => Promise.resolve(answer),
  };
  const send = Object.getOwnPropertySymbols(Object.getPrototypeOf(broker)).find(
    ({ description }) => description === 'private:Broker:sendRequest',
  );
  if (send === undefined) throw new Error('this is not kafkajs 2.2.4: it has no private:Broker:sendRequest');
  const answer = await (broker as unknown as Record<symbol, (asked: unknown) => Promise<Answer>>)[send]!({ ...asked, response });
  if (answer.errorCode !== 0) throw protocolError(answer.errorCode);
  return answer.partitions;
}

/** kafkajs' error for one of Kafka's numbers. */
export function protocolError(code: number): Error {
  const { createErrorFromCode } = require('kafkajs/src/protocol/error.js') as {
    readonly createErrorFromCode: (code: number) => Error;
  };
  return createErrorFromCode(code);
}

interface Answer {
  /** Heeded by kafkajs' request queue. */
  readonly clientSideThrottleTime: number;
  readonly errorCode: number;
  readonly partitions: readonly FetchedPartition[];
}

/** Fetch answers of versions 4 to 11. */
function readAnswer(bytes: Buffer, version: number): Answer {
  const reader = new Reader(bytes);
  const throttleMs = reader.int32();
  const errorCode = version >= 7 ? reader.int16() : 0;
  if (version >= 7) reader.int32();
  const partitions: FetchedPartition[] = [];
  for (let topics = reader.int32(); topics > 0; topics--) {
    const topic = reader.string();
    for (let left = reader.int32(); left > 0; left--) {
      const partition = reader.int32();
      const partitionError = reader.int16();
      const highWatermark = reader.int64();
      const lastStableOffset = reader.int64();
      if (version >= 5) reader.int64();
      const abortedTransactions = [];
      // -1: none were asked for.
      for (let aborted = reader.int32(); aborted > 0; aborted--)
        abortedTransactions.push({ producerId: String(reader.bigint64()), firstOffset: reader.int64() });
      if (version >= 11) reader.int32();
      const records = reader.bytes();
      const error = { topic, partition, errorCode: partitionError };
      partitions.push({ ...error, highWatermark, lastStableOffset, abortedTransactions, records });
    }
  }
  return { clientSideThrottleTime: version >= 8 ? throttleMs : 0, errorCode, partitions };
}

class Reader {
  readonly #bytes: Buffer;
  #at = 0;

  constructor(bytes: Buffer) {
    this.#bytes = bytes;
  }

  int16(): number {
    this.#at += 2;
    return this.#bytes.readInt16BE(this.#at - 2);
  }

  int32(): number {
    this.#at += 4;
    return this.#bytes.readInt32BE(this.#at - 4);
  }

  bigint64(): bigint {
    this.#at += 8;
    return this.#bytes.readBigInt64BE(this.#at - 8);
  }

  int64(): number {
    return Number(this.bigint64());
  }

  string(): string {
    const length = this.int16();
    this.#at += Math.max(0, length);
    return length < 0 ? '' : this.#bytes.toString('utf8', this.#at - length, this.#at);
  }

  bytes(): Buffer {
    const length = Math.max(0, this.int32());
    this.#at += length;
    return this.#bytes.subarray(this.#at - length, this.#at);
  }
}
