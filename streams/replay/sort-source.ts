/** The first half of a backfill: one pass over the source, events into the sort, dead letters to the world. */
import type { UserSort } from '../../infra/files/user-sort.ts';
import { deadLetter } from '../../operators/dead-letter.ts';
import type { Tokenizer } from '../../operators/index.ts';
import type { DeadLetter } from '../../schemas/action.ts';
import { Refusals } from './refusals.ts';
import type { BackfillSource } from './source.ts';

export interface SortSourceOptions {
  readonly source: BackfillSource;
  readonly sort: UserSort;
  readonly tokenizer: Tokenizer;
  /** An action of this kind erases its user, and needs no token. */
  readonly erasureAction: string;
  /** Events after this moment are left out, ms. @default none are */
  readonly untilMs?: number | undefined;
  readonly signal?: AbortSignal | undefined;
  readonly onLetter?: (letter: DeadLetter) => void;
  /** Every so many records. */
  readonly onRecords?: (records: number) => void;
}

export interface SortedSource {
  /** What names the records. */
  readonly fingerprint: string;
  readonly records: number;
  /** Of these, dead letters. */
  readonly refusals: Refusals;
  /** Of these, of kinds that are ignored. */
  readonly ignored: number;
  /** Optional values that could not be used, by field. */
  readonly invalid: ReadonlyMap<string, number>;
}

const REPORT_EVERY = 10_000;

/** Records that would be dead letters to live are that here, with the same reasons. */
export async function sortSource(options: SortSourceOptions): Promise<SortedSource> {
  const { source, sort, tokenizer, erasureAction, untilMs = Number.POSITIVE_INFINITY, signal, onLetter, onRecords } = options;
  let records = 0;
  let ignored = 0;
  const refusals = new Refusals();
  const refuse = (letter: DeadLetter) => {
    refusals.add(letter);
    onLetter?.(letter);
  };
  const invalid = new Map<string, number>();
  const fingerprint = await source.scan((record, result, orderOf) => {
    records += 1;
    if (records % REPORT_EVERY === 0) onRecords?.(records);
    if (!result.ok) {
      refuse(deadLetter(record, 'decode', result.code, result.message));
      return;
    }
    if (result.partly !== undefined) refuse(deadLetter(record, 'decode', result.partly.code, result.partly.message));
    if (result.ignored === true) ignored += 1;
    for (const { field } of result.invalid ?? []) invalid.set(field, (invalid.get(field) ?? 0) + 1);
    for (const action of result.actions) {
      if (action.eventTimeMs > untilMs) continue;
      const token = action.action === erasureAction ? undefined : tokenizer.token(action);
      if (token?.kind === 'refuse')
        refuse({ ...deadLetter(record, 'sequence', token.code, token.message), action: action.action });
      else sort.add(action, orderOf(action));
    }
  }, signal);
  return { fingerprint, records, refusals, ignored, invalid };
}
