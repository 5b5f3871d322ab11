/** What of a source could not be used, by code with an example each, and what was left out of what could. */
import type { DeadLetter } from '../../schemas/action.ts';
import type { ErrorCode } from '../../schemas/errors.ts';

export interface Refusal {
  readonly code: ErrorCode;
  readonly step: string;
  readonly count: number;
  /** Of the first: what was wrong, and where it stands. */
  readonly example: string;
}

export class Refusals {
  readonly #byCode = new Map<string, { code: ErrorCode; step: string; count: number; readonly example: string }>();
  #count = 0;

  add({ code, step, message, position: { topic, partition, offset } }: DeadLetter): void {
    this.#count += 1;
    const key = `${step} ${code}`;
    const known = this.#byCode.get(key);
    if (known !== undefined) known.count += 1;
    else this.#byCode.set(key, { code, step, count: 1, example: `${topic}/${partition}/${offset}: ${message}` });
  }

  get count(): number {
    return this.#count;
  }

  /** Most first. */
  get list(): readonly Refusal[] {
    return [...this.#byCode.values()].sort((a, b) => b.count - a.count);
  }
}

/** Whether a source had records and none of them could be used: a wrong mapping, or a wrong unit, rather than a quiet day. */
export const isNothingButRefused = (events: number, refusals: Pick<Refusals, 'count'>): boolean =>
  events === 0 && refusals.count > 0;
