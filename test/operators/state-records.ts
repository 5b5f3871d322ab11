/** A store of records in a map, and what of a sequence can be seen: for the tests of sequences that are written down. */
import { UserSequence } from '../../operators/user-sequence.ts';
import type { StateChange, StateReader } from '../../schemas/state.ts';
import type { EventSpec } from './fixtures.ts';
import type { ReferenceOptions } from './reference-sequence.ts';

export const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex');

/** Gives its values in memory that the next `get` overwrites, as a store may. */
export class MapStore implements StateReader {
  readonly records = new Map<string, Uint8Array>();
  readonly #lent = new Uint8Array(1 << 20);

  get(key: Uint8Array): Uint8Array | undefined {
    this.#lent.fill(0xee);
    const value = this.records.get(hex(key));
    if (value === undefined) return undefined;
    this.#lent.set(value, 3);
    return this.#lent.subarray(3, 3 + value.length);
  }

  apply(changes: readonly StateChange[]): void {
    for (const { key, value } of changes)
      if (value === null) this.records.delete(hex(key));
      else this.records.set(hex(key), value);
  }
}

export const sequenceOptions = ({ seenLimit, ...window }: ReferenceOptions) => ({ window, seenLimit });
export const newSequence = (options: ReferenceOptions) => new UserSequence(sequenceOptions(options));

export const give = (sequence: UserSequence, { eventId, timeMs, entity }: EventSpec): string =>
  entity === 0 ? sequence.keep(eventId, timeMs) : sequence.add(eventId, timeMs, entity);

export const viewOf = (sequence: UserSequence | undefined) =>
  sequence && {
    snapshot: sequence.snapshot(),
    digest: sequence.digest,
    version: sequence.version,
    windowStart: sequence.windowStart,
    slides: [sequence.slidesWith(1), sequence.slidesWith(2)],
    newestTimeMs: sequence.newestTimeMs,
    eventIds: [...sequence.eventIds],
    keptLength: sequence.keptLength,
    seen: [...sequence.seen()],
    seenStart: sequence.seenStart,
    seenEnd: sequence.seenEnd,
    hasSeen: Array.from({ length: 14 }, (_, entity) => sequence.hasSeen(entity)),
    dropped: [sequence.parts.tokens, sequence.parts.kept].map(({ droppedTimeMs, droppedIds }) => [droppedTimeMs, ...droppedIds]),
  };

export const recordsOf = (changes: readonly StateChange[]) =>
  changes.map(({ key, value }) => `${hex(key)} ${value === null ? 'removed' : hex(value)}`);
