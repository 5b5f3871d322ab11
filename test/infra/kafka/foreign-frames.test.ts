/** Record batches that Java, librdkafka and Go clients wrote, read as they say they wrote them (test/golden/kafka-frames). */
import { createHash } from 'node:crypto';
import { readdirSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import { keepCommitted } from '../../../infra/kafka/committed-records.ts';
import { PartitionBuffer } from '../../../infra/kafka/partition-buffer.ts';

const FOLDER = fileURLToPath(new URL('../../golden/kafka-frames/', import.meta.url));

interface Expected {
  readonly records: number;
  readonly abortedTransactions: readonly { readonly producerId: string; readonly firstOffset: string }[];
  readonly each?: readonly {
    readonly offset: number;
    readonly timestampMs: number;
    readonly key: string | null;
    readonly value?: string | null;
    readonly valueBytes?: number;
    readonly valueSha256?: string;
    readonly aborted?: true;
  }[];
}

const names = readdirSync(FOLDER).flatMap((name) => (name.endsWith('.bin') ? [name.slice(0, -4)] : []));

describe('record batches of other clients', () => {
  it('are of every client and codec', () => {
    for (const client of ['java', 'librdkafka', 'franz-go', 'sarama'])
      for (const codec of ['gzip', 'snappy', 'lz4', 'zstd']) expect(names).toContain(`${client}-${codec}`);
  });

  it.each(names)('%s', async (name) => {
    const expected = JSON.parse(readFileSync(`${FOLDER}${name}.json`, 'utf8')) as Expected;
    const buffer = new PartitionBuffer(name, 0, 0);
    const abortedTransactions = expected.abortedTransactions.map(({ producerId, firstOffset }) => ({
      producerId,
      firstOffset: Number(firstOffset),
    }));
    const records = readFileSync(`${FOLDER}${name}.bin`);
    expect(await keepCommitted(buffer, { records, abortedTransactions, highWatermark: 1e9 }, 64 * 2 ** 20)).toBeUndefined();
    const taken = buffer.take(100_000, Number.POSITIVE_INFINITY);
    const committed =
      (expected.each?.length ?? 0) === 0 ? undefined : expected.each!.filter(({ aborted }) => aborted === undefined);
    expect(taken).toHaveLength(committed?.length ?? expected.records);
    for (const [i, wanted] of (committed ?? []).entries()) {
      const { position, timestampMs, key, value } = taken[i]!;
      const text = (bytes: unknown) => (bytes === null ? null : Buffer.from(bytes as Uint8Array).toString('base64'));
      expect({ offset: position.offset, timestampMs, key: text(key) }).toEqual({
        offset: wanted.offset,
        timestampMs: wanted.timestampMs,
        key: wanted.key,
      });
      if (wanted.valueSha256 === undefined) expect(text(value)).toBe(wanted.value);
      else {
        expect((value as Uint8Array).byteLength).toBe(wanted.valueBytes);
        expect(
          createHash('sha256')
            .update(value as Uint8Array)
            .digest('hex'),
        ).toBe(wanted.valueSha256);
      }
    }
  });
});
