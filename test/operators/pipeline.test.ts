/** The operators as one sentence: what goes in one end comes out of the other, however it was cut on the way. */
import fc from 'fast-check';
import { from, lastValueFrom, toArray } from 'rxjs';
import { describe, expect, it } from 'vitest';
import {
  assemble,
  type Committer,
  decode,
  type Encoder,
  encode,
  gather,
  microBatch,
  orderedCommit,
  publish,
  type Scorer,
  score,
  sequence,
  spread,
} from '../../operators/index.ts';
import type { OutputBatch, SourceBatch } from '../../schemas/batch.ts';
import { decoder, type EventSpec, fakeResult, sourceBatch, tokenizer } from './fixtures.ts';
import { chunksOf, eventsArbitrary, optionsArbitrary } from './sequence-arbitraries.ts';

const ticks = async (count: number) => {
  for (let i = 0; i < count; i++) await Promise.resolve();
};

/** Takes a different number of turns for every call, so that calls end out of order. */
const uneven = () => {
  let call = 0;
  return () => ticks((7 * ++call) % 11);
};

const rank = (row: ArrayLike<number>, target: number, seen: ArrayLike<number>) =>
  1 + ([...Array.from(row), target, ...Array.from(seen)].reduce((sum, x) => (Math.imul(sum, 31) + Math.round(x)) | 0, 7) >>> 1);

function run(
  batches: readonly SourceBatch[],
  publishMode: 'every-batch' | 'every-event',
  window: { maxLength: number; blockLength: number },
  maxRows: number,
) {
  const [encoding, scoring, publishing, committing] = [uneven(), uneven(), uneven(), uneven()];
  const encoder: Encoder = { encode: (requests) => encoding().then(() => requests.map(fakeResult)) };
  const scorer: Scorer = {
    score: async (requests) => {
      await scoring();
      return requests.map(({ rows, targets, seen, seenCount, topK }) => ({
        ranks: targets.map((target, r) =>
          target === 0 ? 0 : rank(rows.subarray(2 * r, 2 * r + 2), target, seen.subarray(0, seenCount[r]!)),
        ),
        topEntities: new Int32Array(topK).fill(3),
        topScores: new Float32Array(topK),
      }));
    },
  };
  const published = new Set<OutputBatch>();
  const publisher = { publish: (batch: OutputBatch) => publishing().then(() => void published.add(batch)) };
  const committer: Committer = {
    commit: async (batch) => {
      expect(published.has(batch)).toBe(true);
      await committing();
    },
  };
  // In two parts: `pipe` has types for nine operators.
  const units$ = from(batches).pipe(
    decode({ decoder }),
    sequence({ tokenizer, window, publish: publishMode }),
    spread(),
    microBatch({ maxRows, maxDelayMs: 0 }),
  );
  const out$ = units$.pipe(
    encode({ encoder, maxInFlight: 3 }),
    score({ scorer, topK: 1, maxInFlight: 3 }),
    gather(),
    assemble({ modelDigest: 'm', entityOf: String, now: () => 0 }),
    publish({ publisher, maxInFlight: 3 }),
    orderedCommit({ committer }),
    toArray(),
  );
  return lastValueFrom(out$);
}

describe('the operators together', () => {
  it('give every batch back, acknowledged in order, with outputs that no cutting changes', async () => {
    await fc.assert(
      fc.asyncProperty(
        optionsArbitrary,
        eventsArbitrary(4, 80),
        fc.array(fc.integer({ min: 1, max: 30 }), { minLength: 1, maxLength: 5 }),
        fc.integer({ min: 1, max: 9 }),
        async (options, events, sizes, maxRows) => {
          const acked: number[] = [];
          const batchesOf = (cut: readonly EventSpec[][]) => {
            let offset = 0;
            return cut.map((chunk): SourceBatch => {
              const batch = sourceBatch(
                offset,
                chunk.map((spec) => ({ ...spec })),
              );
              offset = batch.nextOffset;
              return { ...batch, ack: () => acked.push(batch.nextOffset) };
            });
          };
          const chunks = batchesOf(chunksOf(events, sizes));
          const out = await run(chunks, 'every-event', options, maxRows);
          expect(acked).toEqual(chunks.map(({ nextOffset }) => nextOffset));
          expect(out.map(({ source }) => source)).toEqual(chunks);
          expect(out.flatMap(({ processed, deadLetters }) => [...processed, ...deadLetters]).length).toBe(events.length);

          const single = await run(batchesOf(events.map((spec) => [spec])), 'every-event', options, 4);
          const byOffset = (batches: readonly OutputBatch[]) => {
            const sorted = <T extends { lineage: { offset: number } }>(list: T[]) =>
              list.sort((a, b) => a.lineage.offset - b.lineage.offset);
            return {
              embeddings: sorted(batches.flatMap(({ embeddings }) => embeddings)).map(({ rowsComputed: _, ...rest }) => rest),
              scores: sorted(batches.flatMap(({ scores }) => scores)),
              quality: sorted(batches.flatMap(({ quality }) => quality)),
            };
          };
          expect(byOffset(out)).toEqual(byOffset(single));

          // Published once a batch, the ranks are the same, and so is the last embedding of each user.
          const batched = await run(chunks, 'every-batch', options, maxRows);
          expect(byOffset(batched).quality).toEqual(byOffset(single).quality);
          const lastOf = (batches: readonly OutputBatch[]) =>
            new Map(
              batches.flatMap(({ embeddings }) => embeddings.map(({ rowsComputed: _, ...rest }) => [rest.userId, rest] as const)),
            );
          expect(lastOf(batched)).toEqual(lastOf(single));
        },
      ),
      { numRuns: 100 },
    );
  });
});
