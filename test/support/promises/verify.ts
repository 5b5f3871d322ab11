/** What live published of a stream is what `replay --mode verify` computes from the same offsets: every version, no other. */
import { synthetic } from '../../../examples/synthetic/generate.ts';
import type { Bundle } from '../../../models/hstu/bundle.ts';
import { randomBundle } from '../../../models/hstu/random-bundle.ts';
import type { UserAction } from '../../../schemas/action.ts';
import { verifyStored } from '../../../streams/replay/backfill.ts';
import { kafkaBackfill } from '../../../streams/replay/source.ts';
import { storedInTopic } from '../../../streams/replay/stored.ts';
import type { LiveWorld } from '../live-world.ts';
import type { Say, Shown } from './promise.ts';

/** Actions sent at once. */
const BATCH = 2_000;

/** For `examples/synthetic`: every kind of action, values, and authors and queries among the rows for unknown entities. */
export const syntheticBundle = (): Bundle =>
  randomBundle({
    dimension: 16,
    layers: 2,
    heads: 2,
    maxSequenceLength: 64,
    vocabularySize: 5_000,
    unknownEntity: 'hash',
    outOfVocabulary: 1_000,
    actions: { encoded: ['view', 'like', 'rate', 'follow', 'search', 'buy'], skipped: [] },
    tokens: { layout: 'additive', values: { rate: [2, 3, 4, 5], buy: [5, 25, 75] } },
  });

/** The settings of a world for them. */
export const syntheticSettings = {
  sequence: { erasureAction: 'erase' },
  publish: 'every-event',
  // All of its users' rows, so that it takes minutes and not an hour.
  encoder: { kvBudgetBytes: 2 ** 31 },
} as const;

export interface VerifiedOptions {
  readonly actions: Iterable<UserAction>;
  readonly bundle: Bundle;
  /** A longer time than this without a record consumed is a failure, ms. */
  readonly patienceMs: number;
  readonly say: Say;
}

/** One instance consumes all of it; then the verification. */
export async function replayVerifiesLive(
  world: LiveWorld,
  { actions, bundle, patienceMs, say }: VerifiedOptions,
): Promise<Shown> {
  const instance = await world.start('a');
  await instance.untilRunning(patienceMs);
  const began = performance.now();
  let sent = 0;
  for (const batch of batchesOf(actions)) {
    await world.produce(batch, BATCH);
    sent += batch.length;
    if (sent % (50 * BATCH) === 0) say(`${sent} actions produced`);
  }
  let consumed = 0;
  while (consumed < sent) {
    const next = Math.min(sent, consumed + 100_000);
    await world.untilConsumed(next, patienceMs);
    consumed = next;
    say(`${consumed} consumed after ${Math.round((performance.now() - began) / 1000)} s`);
  }
  const liveSeconds = (performance.now() - began) / 1000;
  await instance.stop();
  const config = { ...world.config, state: { ...world.config.state, path: world.folder } };
  const stored = await storedInTopic(world.config);
  const verifying = performance.now();
  const found = await verifyStored({ config, bundle, source: kafkaBackfill(config, () => ({})), stored, everyVersion: true });
  const { users, compared, maxDelta, missingCount, extraCount, mismatchCount } = found;
  const problems = [
    ...found.missing.map((what) => `missing: ${what}`),
    ...found.extra.map((what) => `extra: ${what}`),
    ...found.mismatches.map((mismatch) => `mismatch: ${JSON.stringify(mismatch)}`),
  ];
  if (!(maxDelta <= 1e-5)) problems.push(`max |Δ| ${maxDelta}`);
  if (compared < 0.9 * sent) problems.push(`only ${compared} embeddings of ${sent} actions were compared`);
  return {
    facts: {
      actions: sent,
      users,
      compared,
      'max |Δ|': maxDelta.toExponential(1),
      missing: missingCount,
      extra: extraCount,
      mismatches: mismatchCount,
      'live, actions a second': Math.round(sent / liveSeconds),
      'verified, actions a second': Math.round((1000 * sent) / (performance.now() - verifying)),
    },
    problems,
  };
}

/** The generated stream, as a client would send it. */
export const syntheticActions = (events: number): Iterable<UserAction> => synthetic({ events });

function* batchesOf(actions: Iterable<UserAction>): Generator<UserAction[]> {
  let batch: UserAction[] = [];
  for (const action of actions) {
    batch.push(action);
    if (batch.length < BATCH) continue;
    yield batch;
    batch = [];
  }
  if (batch.length > 0) yield batch;
}
