/** Records from the future: is it their producer's clock, or this machine's? */
import { describe, expect, it } from 'vitest';
import type { OutputBatch } from '../../../schemas/batch.ts';
import type { ErrorCode } from '../../../schemas/errors.ts';
import { ClockCheck } from '../../../streams/live/require-clock.ts';

const HOUR_MS = 3_600_000;
const TRUE_MS = Date.UTC(2026, 0, 2);

/** Records by how far ahead of true time their timestamps are, ms, and whether they were refused. */
const batchOf = (records: readonly { readonly timestampMs: number; readonly code?: ErrorCode }[]) =>
  ({
    source: {
      topic: 'actions',
      partition: 2,
      records: records.map(({ timestampMs }, offset) => ({ position: { topic: 'actions', partition: 2, offset }, timestampMs })),
    },
    deadLetters: records.flatMap(({ code }, offset) =>
      code === undefined ? [] : [{ position: { topic: 'actions', partition: 2, offset }, code }],
    ),
  }) as unknown as OutputBatch;

/** A changelog whose newest record or marker is of `newestMs`; the brokers' clock is right. */
function world(machineMs: number, newestMs: number) {
  let newest = newestMs;
  const calls: string[] = [];
  const check = new ClockCheck({
    now: () => machineMs,
    hasAnythingAfter: async (timeMs) => (calls.push('look'), newest > timeMs),
    commitNothing: async () => {
      calls.push('commit');
      newest = TRUE_MS;
    },
  });
  return { check, calls };
}
const good = (count: number) => Array.from({ length: count }, (_, i) => ({ timestampMs: TRUE_MS - i }));
const ahead = (count: number) => good(count).map((record) => ({ ...record, code: 'TIME_INVALID' as const }));

describe('a batch from the future', () => {
  it.each([
    ['the changelog has what was written an hour ago', TRUE_MS - HOUR_MS, ['look']],
    ['the changelog has nothing of the last days', TRUE_MS - 72 * HOUR_MS, ['look', 'commit', 'look']],
  ])('stops a machine that is 25 h behind, where %s', async (_, newestMs, calls) => {
    const it = world(TRUE_MS - 25 * HOUR_MS, newestMs);
    await expect(it.check.require(batchOf(ahead(50)))).rejects.toMatchObject({
      code: 'CLOCK_OFF',
      retriable: false,
      exitCode: 2,
      message: expect.stringMatching(
        /2025-12-31T23:00:00.000Z, and is about 25 h 0 min behind .* 50 of the 50 records at actions\/2, offsets 0 to 49/,
      ),
    });
    expect(it.calls).toEqual(calls);
  });

  it.each([
    [
      'a producer whose clock is 25 h ahead, alone in its batch',
      [{ timestampMs: TRUE_MS + 25 * HOUR_MS, code: 'TIME_INVALID' as const }],
    ],
    ['a hundred of its records', Array(100).fill({ timestampMs: TRUE_MS + 25 * HOUR_MS, code: 'TIME_INVALID' as const })],
  ])('is dead letters, where it is %s', async (_, records) => {
    const it = world(TRUE_MS, TRUE_MS - 1_000);
    await it.check.require(batchOf(records));
    expect(it.calls).toEqual(['look', 'commit', 'look']);
    // Not asked again for every batch of it.
    await it.check.require(batchOf(records));
    expect(it.calls).toHaveLength(3);
  });

  it.each([
    [
      'a unit that is wrong, written now',
      good(50).map((record) => ({ ...record, timestampMs: TRUE_MS - 1, code: 'TIME_INVALID' as const })),
    ],
    ['a few of many', [...good(60), ...ahead(40)]],
    ['refused for something else', good(50).map((record) => ({ ...record, code: 'ENTITY_UNKNOWN' as const }))],
    ['nothing at all', []],
  ])('%s is no matter of the clock, and costs nothing', async (_, records) => {
    const it = world(TRUE_MS, TRUE_MS);
    await it.check.require(batchOf(records));
    expect(it.calls).toEqual([]);
  });
});
