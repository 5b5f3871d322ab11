/** Backfill by stepping: every event alone through the KV cache, as live publishes every event. What the bulk path must equal. */
import { from, lastValueFrom, toArray } from 'rxjs';
import type { Bundle } from '../../models/hstu/bundle.ts';
import { Tokenizer } from '../../models/hstu/tokenizer.ts';
import type { EncoderEngine } from '../../models/worker/engine.ts';
import { encode, microBatch, score, sequence, spread } from '../../operators/index.ts';
import type { PositionedAction } from '../../schemas/action.ts';

/** The state as of an event (or, with `eventId` undefined, at the end of a history). */
export interface StepRow {
  readonly userId: string;
  readonly version: number;
  readonly sequenceDigest: string;
  readonly queryTimeMs: number;
  readonly rank: number;
  readonly embedding: Float32Array;
}

export interface StepPath {
  /** As of just before each ranked event, by `user/version`. */
  readonly points: Map<string, StepRow>;
  /** At the end of each history, by user. */
  readonly ends: Map<string, StepRow>;
  /** What became of each action, in order, by `user/event`, erased ones left out. */
  readonly dispositions: string[];
}

/** @param actions in the order of arrival */
export async function stepPath(
  bundle: Bundle,
  engine: EncoderEngine,
  actions: readonly PositionedAction[],
  seenLimit: number,
): Promise<StepPath> {
  const batches = actions.map((action, i) => ({
    source: { topic: 't', partition: 0, records: [], nextOffset: i + 1, readAtMs: 0, ack: () => undefined },
    actions: [action],
    deadLetters: [],
  }));
  const stepped = await lastValueFrom(
    from(batches).pipe(
      sequence({
        tokenizer: new Tokenizer(bundle),
        window: bundle.config.window,
        seenLimit,
        publish: 'every-event',
        erasureAction: 'erase',
      }),
      spread(),
      microBatch({ maxRows: 1, maxDelayMs: 0 }),
      encode({ encoder: engine, maxInFlight: 1 }),
      score({ scorer: engine, topK: 0, maxInFlight: 1 }),
      toArray(),
    ),
  );
  const points = new Map<string, StepRow>();
  const ends = new Map<string, StepRow>();
  let dispositions: string[] = [];
  const D = bundle.config.dimension;
  for (const { batch, update } of stepped.flat()) {
    for (const userId of batch.erased ?? []) {
      engine.forget(userId);
      ends.delete(userId);
      for (const key of points.keys()) if (key.startsWith(`${userId}/`)) points.delete(key);
      dispositions = dispositions.filter((line) => !line.startsWith(`${userId}/`));
    }
    for (const { action, disposition } of batch.processed)
      dispositions.push(`${action.userId}/${action.eventId} ${disposition} ${action.position.offset}`);
    if (update === null) continue;
    const { userId } = update.update;
    for (const { segment, row, priorEvents, sequenceDigest, action } of update.update.targets)
      points.set(`${userId}/${priorEvents}`, {
        userId,
        version: priorEvents,
        sequenceDigest,
        queryTimeMs: action.eventTimeMs,
        rank: update.scores[segment]!.ranks[row]!,
        embedding: update.segments[segment]!.rows.slice(row * D, (row + 1) * D),
      });
    const [point] = update.update.publish;
    const { rows } = update.segments[point!.segment]!;
    ends.set(userId, { userId, ...point!, rank: 0, embedding: rows.slice(-D) });
  }
  return { points, ends, dispositions };
}
