/** Records for the operator tests, and collaborators that answer in virtual time. */
import type { SchedulerLike } from 'rxjs';
import { TestScheduler } from 'rxjs/testing';
import { expect } from 'vitest';
import type { Decoder } from '../../operators/decode.ts';
import type { Tokenizer } from '../../operators/sequence.ts';
import type { PositionedAction, SourceRecord } from '../../schemas/action.ts';
import type { DecodedBatch, OutputBatch, SequencedBatch, SourceBatch, UserUpdate } from '../../schemas/batch.ts';
import type { EncodeRequest, EncodeResult, EncodeSegment } from '../../schemas/encoding.ts';
import { digestTokens } from '../../schemas/sequence-digest.ts';

export const marbles = (
  body: (scheduler: TestScheduler, helpers: Parameters<Parameters<TestScheduler['run']>[0]>[0]) => void,
): void => {
  const scheduler = new TestScheduler((actual, expected) => expect(actual).toEqual(expected));
  scheduler.run((helpers) => body(scheduler, helpers));
};

/**
 * What `from` takes for a promise, settled after `delayMs` on the scheduler's clock: real promises settle outside virtual
 * time, and marbles could not see when.
 */
export function virtualPromise<T>(scheduler: SchedulerLike, delayMs: number, settle: () => T): Promise<T> {
  const thenable = {
    // biome-ignore lint/suspicious/noThenProperty: it stands for a promise
    then(onValue: (value: T) => void, onError: (error: unknown) => void) {
      scheduler.schedule(() => {
        let value: T;
        try {
          value = settle();
        } catch (error) {
          onError(error);
          return;
        }
        onValue(value);
      }, delayMs);
      return Promise.resolve();
    },
  };
  return thenable as unknown as Promise<T>;
}

export const sourceBatch = (offset: number, values: readonly SourceRecord['value'][], partition = 0): SourceBatch => ({
  topic: 'actions',
  partition,
  records: values.map((value, i) => ({ position: { topic: 'actions', partition, offset: offset + i }, value })),
  nextOffset: offset + values.length,
  readAtMs: 1_000_000,
  ack: () => {},
});

export interface EventSpec {
  readonly userId: string;
  readonly eventId: string;
  readonly timeMs: number;
  /** Entity row; 0 for a kind that is kept, -1 for one that is refused. */
  readonly entity: number;
}

export const actionOf = ({ userId, eventId, timeMs, entity }: EventSpec, offset: number, partition = 0): PositionedAction => ({
  userId,
  eventId,
  eventTimeMs: timeMs,
  action: entity > 0 ? 'rating' : entity === 0 ? 'view' : 'unheard-of',
  entity: `movie:${entity}`,
  position: { topic: 'actions', partition, offset },
});

export const tokenizer: Tokenizer = {
  token: ({ action, entity }) => {
    if (action === 'rating') return { kind: 'token', entity: Number(entity.slice('movie:'.length)) };
    if (action === 'view') return { kind: 'keep' };
    return { kind: 'refuse', code: 'ACTION_UNKNOWN', message: `no such action: ${action}` };
  },
};

/** A parsed `EventSpec` row; `{ bad: true }` is refused, `{ throws: true }` throws. */
export const decoder: Decoder = {
  decode: ({ value, position }) => {
    const row = value as Record<string, unknown>;
    if (row['throws']) throw new Error('decoder blew up');
    if (row['bad']) return { ok: false, code: 'FIELD_MISSING', message: 'userId is missing' };
    return { ok: true, actions: [actionOf(row as unknown as EventSpec, position.offset, position.partition)] };
  },
};

export const decodedBatch = (offset: number, events: readonly EventSpec[], partition = 0): DecodedBatch => ({
  source: sourceBatch(
    offset,
    events.map((event) => JSON.stringify(event)),
    partition,
  ),
  actions: events.map((event, i) => actionOf(event, offset + i, partition)),
  deadLetters: [],
});

export const event = (userId: string, eventId: string, timeMs: number, entity = 1): EventSpec => ({
  userId,
  eventId,
  timeMs,
  entity,
});

export const segmentOf = (
  tokens: readonly (readonly [entity: number, timeS: number])[],
  from = 0,
  queryTimeS = 0,
): EncodeSegment => ({
  windowStart: 0,
  entities: Int32Array.from(tokens, ([entity]) => entity),
  timesS: Float64Array.from(tokens, ([, timeS]) => timeS),
  pageDigests: new Uint32Array(0),
  from,
  queryTimeS,
});

/** An update of one token that publishes its embedding and ranks nothing. */
export const updateOf = (userId: string, entity = 1, offset = 0): UserUpdate => ({
  userId,
  request: { userId, segments: [segmentOf([[entity, 1]], 0, 1)] },
  targets: [],
  publish: [
    {
      segment: 0,
      version: 1,
      sequenceLength: 1,
      sequenceDigest: '0'.repeat(16),
      lastEventTimeMs: 1000,
      queryTimeMs: 1000,
      seenStart: 0,
      seenCount: 1,
      position: { topic: 'actions', partition: 0, offset },
    },
  ],
  seen: Int32Array.of(entity),
});

export const sequencedBatch = (offset: number, userIds: readonly string[], partition = 0): SequencedBatch => ({
  source: sourceBatch(offset, [], partition),
  processed: [],
  deadLetters: [],
  updates: userIds.map((userId, i) => updateOf(userId, i + 1, offset)),
});

export const outputBatch = (offset: number, partition = 0, ack: () => void = () => {}): OutputBatch => ({
  source: { ...sourceBatch(offset, [], partition), ack },
  processed: [],
  deadLetters: [],
  embeddings: [],
  scores: [],
  quality: [],
});

/** A stand-in for the model with its one property that matters here: row `r` depends on tokens `0 … r` and the time of the next. */
export const fakeResult = ({ userId, segments }: EncodeRequest): EncodeResult => ({
  userId,
  segments: segments.map(({ entities, timesS, from, queryTimeS }) => {
    const rows = new Float32Array(2 * (entities.length - from));
    for (let r = from; r < entities.length; r++) {
      rows[2 * (r - from)] = digestTokens(entities, timesS, 0, r + 1).low;
      rows[2 * (r - from) + 1] = timesS[r + 1] ?? queryTimeS;
    }
    return { rows, rowsComputed: entities.length - from, outcome: 'hit' };
  }),
});
