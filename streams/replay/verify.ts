/** Recomputes what is stored and says where it differs: the proof that a backfill, or live, did what it promises. */
import { pipe, Subject } from 'rxjs';
import type { UserSort } from '../../infra/files/user-sort.ts';
import { type Encoder, sequence } from '../../operators/index.ts';
import type { DecodedBatch, SequencedBatch, UserUpdate } from '../../schemas/batch.ts';
import type { Config } from '../../schemas/config.ts';
import type { EncodeSegment } from '../../schemas/encoding.ts';
import type { StoredState } from '../../schemas/stored-state.ts';
import { featuresOfContexts, sequencing } from '../pipeline.ts';
import type { BulkModel } from './bulk-flow.ts';
import { Histories } from './histories.ts';
import type { StoredEmbeddings } from './stored.ts';
import { type UserBatch, userBatches } from './user-batches.ts';

/** A stored embedding that is not what the events and the model give. */
export interface Mismatch {
  readonly userId: string;
  readonly version: number;
  /** `tokens`: made of others; `model`: by another; `numbers`: of the same, and beyond the tolerance. */
  readonly because: 'tokens' | 'model' | 'numbers';
  readonly stored: string;
  readonly expected: string;
}

export interface Verification {
  readonly users: number;
  /** Embeddings recomputed. */
  readonly compared: number;
  /** Largest |stored − recomputed|; NaN when nothing was compared. */
  readonly maxDelta: number;
  /** Users (with `everyVersion` also versions) that should be stored and are not: `user/version`. The first of them. */
  readonly missing: readonly string[];
  readonly missingCount: number;
  /** Stored, and of no state that the events give. The first of them. */
  readonly extra: readonly string[];
  readonly extraCount: number;
  readonly mismatches: readonly Mismatch[];
  readonly mismatchCount: number;
}

export interface VerifyOptions {
  /** Filled from the source that the stored was made of. */
  readonly sort: UserSort;
  readonly stored: StoredEmbeddings;
  readonly model: Omit<BulkModel, 'heads'>;
  readonly settings: Pick<Config, 'sequence'>;
  readonly encoder: { encodeInBulk: Encoder['encode'] };
  /** Whether each version of a user must be stored, or only the newest. */
  readonly everyVersion: boolean;
  /** Events of a batch. */
  readonly maxEvents: number;
  /** Largest difference that is the same. @default 1e-5 */
  readonly tolerance?: number | undefined;
  readonly signal?: AbortSignal | undefined;
  readonly onProgress?: (events: number) => void;
}

/** Whether all of it is as it should be. */
export const isVerified = ({ missingCount, extraCount, mismatchCount, compared }: Verification): boolean =>
  compared > 0 && missingCount === 0 && extraCount === 0 && mismatchCount === 0;

/** What is listed of each kind. */
const LISTED = 50;

/** What is known of the user in hand: which versions the events gave, since its last erasure. */
interface Open {
  readonly given: Set<number>;
  newest: number;
}

export async function verify(options: VerifyOptions): Promise<Verification> {
  const { sort, stored, model, settings, maxEvents, signal, onProgress } = options;
  const check = new Check(options);
  const histories = new Histories();
  const sequenceOf = synchronous(
    pipe(
      featuresOfContexts(settings, model.tokenizer),
      sequence({ ...sequencing(settings, model), publish: 'every-event', store: histories }),
    ),
  );
  const users = new Set<string>();
  let events = 0;
  for (const batch of userBatches(sort.sorted(), maxEvents)) {
    signal?.throwIfAborted();
    const userIds = [...new Set(batch.actions.map(({ userId }) => userId))];
    const states = await stored.ofUsers(userIds);
    await check.batch(batch, userIds, sequenceOf(decoded(batch)), states);
    histories.keepOnly(batch.continues);
    for (const userId of userIds) users.add(userId);
    events += batch.actions.length;
    onProgress?.(events);
  }
  for (const userId of await stored.users()) if (!users.has(userId)) check.unknown(userId);
  return { users: users.size, ...check.result };
}

class Check {
  readonly #options: VerifyOptions;
  readonly #open = new Map<string, Open>();
  readonly #missing: string[] = [];
  readonly #extra: string[] = [];
  readonly #mismatches: Mismatch[] = [];
  #counts = { compared: 0, missingCount: 0, extraCount: 0, mismatchCount: 0 };
  #maxDelta = Number.NaN;

  constructor(options: VerifyOptions) {
    this.#options = options;
  }

  get result(): Omit<Verification, 'users'> {
    return {
      ...this.#counts,
      maxDelta: this.#maxDelta,
      missing: this.#missing,
      extra: this.#extra,
      mismatches: this.#mismatches,
    };
  }

  async batch(
    { continues }: UserBatch,
    userIds: readonly string[],
    { updates, erased = [] }: SequencedBatch,
    states: ReadonlyMap<string, ReadonlyMap<number, StoredState>>,
  ): Promise<void> {
    for (const userId of erased) this.#open.delete(userId);
    await this.#compare(updates, states);
    for (const userId of userIds) if (userId !== continues) this.#close(userId, states.get(userId) ?? new Map());
  }

  unknown(userId: string): void {
    this.#note(this.#extra, 'extraCount', userId);
  }

  async #compare(updates: readonly UserUpdate[], states: ReadonlyMap<string, ReadonlyMap<number, StoredState>>): Promise<void> {
    const asked: {
      readonly userId: string;
      readonly version: number;
      readonly state: StoredState;
      readonly segment: EncodeSegment;
    }[] = [];
    for (const { userId, publish, request } of updates) {
      const open = this.#open.get(userId) ?? { given: new Set(), newest: 0 };
      this.#open.set(userId, open);
      for (const { version, segment, sequenceDigest } of publish) {
        open.given.add(version);
        open.newest = version;
        const state = states.get(userId)?.get(version);
        if (state === undefined) continue;
        const { digest } = this.#options.model;
        if (state.modelDigest !== digest) this.#differs(userId, version, 'model', state.modelDigest, digest);
        else if (state.sequenceDigest !== sequenceDigest)
          this.#differs(userId, version, 'tokens', state.sequenceDigest, sequenceDigest);
        else {
          const { entities, ...window } = request.segments[segment]!;
          const queryTimeS = Math.floor(state.queryTimeMs / 1000);
          asked.push({ userId, version, state, segment: { ...window, entities, from: entities.length - 1, queryTimeS } });
        }
      }
    }
    const requests = byUser(asked).map(([userId, ofUser]) => ({ userId, segments: ofUser.map(({ segment }) => segment) }));
    const results = requests.length === 0 ? [] : await this.#options.encoder.encodeInBulk(requests);
    const rows = results.flatMap(({ segments }) => segments.map((segment) => segment.rows));
    for (const [i, { userId, version, state }] of byUser(asked)
      .flatMap(([, ofUser]) => ofUser)
      .entries())
      this.#numbers(userId, version, state.embedding, rows[i]!);
  }

  #numbers(userId: string, version: number, stored: Float32Array, expected: Float32Array): void {
    this.#counts.compared += 1;
    let delta = stored.length === expected.length ? 0 : Number.NaN;
    for (let d = 0; d < expected.length; d++) {
      const distance = Math.abs(stored[d]! - expected[d]!);
      if (distance > delta || Number.isNaN(distance)) delta = distance;
    }
    if (Number.isNaN(this.#maxDelta) || delta > this.#maxDelta) this.#maxDelta = delta;
    // Written so that NaN is a mismatch.
    if (!(delta <= (this.#options.tolerance ?? 1e-5))) this.#differs(userId, version, 'numbers', `|Δ| ${delta}`, '0');
  }

  #close(userId: string, states: ReadonlyMap<number, StoredState>): void {
    const open = this.#open.get(userId);
    this.#open.delete(userId);
    const due = open === undefined ? [] : this.#options.everyVersion ? [...open.given] : [open.newest];
    for (const version of due) if (!states.has(version)) this.#note(this.#missing, 'missingCount', `${userId}/${version}`);
    for (const version of states.keys())
      if (open?.given.has(version) !== true) this.#note(this.#extra, 'extraCount', `${userId}/${version}`);
  }

  #differs(userId: string, version: number, because: Mismatch['because'], stored: string, expected: string): void {
    this.#counts.mismatchCount += 1;
    if (this.#mismatches.length < LISTED) this.#mismatches.push({ userId, version, because, stored, expected });
  }

  #note(list: string[], count: 'missingCount' | 'extraCount', what: string): void {
    this.#counts[count] += 1;
    if (list.length < LISTED) list.push(what);
  }
}

function byUser<T extends { readonly userId: string }>(list: readonly T[]): [string, T[]][] {
  const users = new Map<string, T[]>();
  for (const one of list) {
    const ofUser = users.get(one.userId);
    if (ofUser === undefined) users.set(one.userId, [one]);
    else ofUser.push(one);
  }
  return [...users];
}

/** An operator that answers each value at once, as a function. */
function synchronous(operator: ReturnType<typeof sequence>): (batch: DecodedBatch) => SequencedBatch {
  const in$ = new Subject<DecodedBatch>();
  let last: SequencedBatch | undefined;
  in$.pipe(operator).subscribe((batch) => {
    last = batch;
  });
  return (batch) => {
    in$.next(batch);
    return last!;
  };
}

const decoded = ({ actions, nextPosition }: UserBatch): DecodedBatch => ({
  source: { topic: 'backfill', partition: 0, records: [], nextOffset: nextPosition, readAtMs: 0, ack: () => undefined },
  actions,
  deadLetters: [],
});
