/** What a request for candidates is answered from: the state as it is, looked at and not changed. Plain functions, no RxJS. */
import type { PositionedRequest } from '../schemas/avro/requests.ts';
import type { SequencedRequest } from '../schemas/batch.ts';
import type { CatalogueFilter } from '../schemas/catalogue-filter.ts';
import { type AllowedRows, isAllowed } from '../schemas/encoding.ts';
import type { LeftOutCandidate } from '../schemas/output.ts';
import { digestHex, EMPTY_DIGEST } from '../schemas/sequence-digest.ts';
import type { HiddenOf } from './hidden-events.ts';
import type { SequenceStore } from './sequence-store.ts';
import { toSeconds, type UserSequence } from './user-sequence.ts';

/** The model's entities, as candidates need them. */
export interface CandidateVocabulary {
  /** Embedding row of an entity: its own, or a shared one out of the vocabulary; undefined where the model has neither. */
  rowOf(entity: string): number | undefined;
  /** External id of an embedding row, or of a token's entity; a shared row has one that no entity has. */
  entityOf(row: number): string;
}

export interface SequenceRequestsOptions {
  readonly vocabulary: CandidateVocabulary;
  /** Score entities outside the vocabulary by their shared row, where the model has such rows. @default 'hash' */
  readonly unknownCandidates?: 'hash' | 'leave-out';
  /** Leave out of the catalogue's best what the user has seen, or what of it the function says. @default true */
  readonly seenFilter?: boolean | HiddenOf;
  /**
   * Rows that meet a request's filter; for the catalogue's best also what holds of every list. Undefined: all that are offered.
   *
   * @default a catalogue of which nothing is known: requests with a filter are answered by nothing
   */
  readonly allowed?: (filter: CatalogueFilter | undefined, wholeCatalogue: boolean) => AllowedRows | undefined;
}

/** The user's part of what a request is answered from; shared by the requests of one batch. */
interface UserState {
  readonly window: Omit<SequencedRequest['window'], 'queryTimeS'>;
  readonly version: number;
  readonly sequenceDigest: string;
  readonly lastEventTimeMs?: number;
  readonly seen: Int32Array;
}

const NOBODY: UserState = {
  window: { windowStart: 0, entities: new Int32Array(0), timesS: new Float64Array(0), pageDigests: new Uint32Array(0) },
  version: 0,
  sequenceDigest: digestHex(EMPTY_DIGEST),
  seen: new Int32Array(0),
};

/**
 * Puts the state of its user beside every request of a batch. Requests of one user share one copy of the window.
 *
 * A request that is past its deadline when the batch was read is marked so, and costs no look at the state.
 */
export function sequenceRequests(
  requests: readonly PositionedRequest[],
  store: SequenceStore,
  readAtMs: number,
  options: SequenceRequestsOptions,
): SequencedRequest[] {
  const users = new Map<string, UserState>();
  const stateOf = (userId: string): UserState => {
    const known = users.get(userId);
    if (known !== undefined) return known;
    const state = stateFrom(store.get(userId));
    users.set(userId, state);
    return state;
  };
  return requests.map((request) => {
    const expired = request.deadlineMs !== undefined && request.deadlineMs < readAtMs;
    return expired ? expiredRequest(request) : sequenceRequest(request, stateOf(request.userId), options);
  });
}

function stateFrom(sequence: UserSequence | undefined): UserState {
  if (sequence === undefined || sequence.length === 0) return NOBODY;
  return {
    window: sequence.snapshot(),
    version: sequence.version,
    sequenceDigest: sequence.digest,
    lastEventTimeMs: sequence.newestTimeMs,
    seen: sequence.seen(),
  };
}

const expiredRequest = (request: PositionedRequest): SequencedRequest => ({
  request,
  expired: true,
  window: { ...NOBODY.window, queryTimeS: toSeconds(request.queryTimeMs) },
  version: 0,
  sequenceDigest: NOBODY.sequenceDigest,
  queryTimeMs: request.queryTimeMs,
  entities: [],
  candidates: new Int32Array(0),
  leftOut: [],
  hidden: new Int32Array(0),
});

function sequenceRequest(
  request: PositionedRequest,
  { window, version, sequenceDigest, lastEventTimeMs, seen }: UserState,
  { vocabulary, unknownCandidates = 'hash', seenFilter = true, allowed: allowedBy }: SequenceRequestsOptions,
): SequencedRequest {
  const { entities, deny = [] } = request;
  const denied = new Set(deny);
  const asked: { entity: string; row: number }[] = [];
  const leftOut: LeftOutCandidate[] = [];
  const allowed = allowedBy?.(request.filter, entities.length === 0);
  for (const entity of new Set(entities)) {
    const row = vocabulary.rowOf(entity);
    if (denied.has(entity)) leftOut.push({ entity, reason: 'denied' });
    else if (row === undefined || (unknownCandidates === 'leave-out' && vocabulary.entityOf(row) !== entity))
      leftOut.push({ entity, reason: 'unknown-entity' });
    else if (allowed !== undefined && !isAllowed(allowed, row)) leftOut.push({ entity, reason: 'filtered' });
    else asked.push({ entity, row });
  }
  const queryTimeMs = Math.max(request.queryTimeMs, lastEventTimeMs ?? Number.NEGATIVE_INFINITY);
  const asOf = { ...window, queryTimeS: toSeconds(queryTimeMs) };
  const filtered = typeof seenFilter === 'function' ? seenFilter(asOf) : seenFilter ? seen : new Int32Array(0);
  const seenEntities = entities.length === 0 ? Array.from(filtered, (token) => vocabulary.entityOf(token)) : [];
  const hidden = entities.length > 0 ? [] : [...deny, ...seenEntities].flatMap((entity) => vocabulary.rowOf(entity) ?? []);
  return {
    request,
    expired: false,
    window: asOf,
    version,
    sequenceDigest,
    queryTimeMs,
    ...(lastEventTimeMs !== undefined && { lastEventTimeMs }),
    entities: asked.map(({ entity }) => entity),
    candidates: Int32Array.from(asked, ({ row }) => row),
    leftOut,
    hidden: Int32Array.from(hidden),
    ...(allowed !== undefined && { allowed }),
  };
}
