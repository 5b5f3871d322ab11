/** Reads the time of an event exactly, and refuses one that cannot be true. */
import { isoMs } from './iso-time.ts';
import type { KindMapping } from './mapping-config.ts';
import { compilePath, Fault, missing, numberOf, type OnInvalid, type Row, shown } from './record-fields.ts';

/** The last millisecond that the stores can hold (2286-11-20). */
const MAX_TIME_MS = 9_999_999_999_999;
/** Before this, a time that a thousandfold would be of our days looks as if its unit were another: 1980. */
const LONG_AGO_MS = 315_532_800_000;

export interface TimeBounds {
  /** Earliest credible event time, ms since the epoch. @default 0 */
  readonly minMs?: number;
  /** How far ahead of `now` an event may lie, ms. @default one day */
  readonly maxFutureMs?: number;
  /** The clock, ms since the epoch. @default Date.now */
  readonly now?: () => number;
}

type Unit = KindMapping['eventTime']['unit'];

/** Of a unit, decimal digits of a second. */
const DIGITS: Readonly<Record<Exclude<Unit, 'iso'>, number>> = { s: 0, ms: 3, us: 6, ns: 9 };

/**
 * Reads a field as a time, ms since the epoch: a number of its unit, whose fractions of a millisecond are cut, or ISO 8601 text. Where a
 * unit of numbers is given, a text that is a date is one too: archives have as dates what topics have as numbers.
 *
 * @param onInvalid told of times that look a thousand times off
 */
export function compileTime(
  { field, unit }: KindMapping['eventTime'],
  { minMs = 0, maxFutureMs = 86_400_000, now = Date.now }: TimeBounds,
  onInvalid: OnInvalid = () => undefined,
): (row: Row) => number | Fault {
  const read = compilePath(field);
  const invalid = (problem: string) => new Fault('TIME_INVALID', `field '${field}' ${problem}`);
  return (row) => {
    const value = read(row);
    if (value === undefined || value === null || value === '') return missing(field);
    const iso = typeof value === 'string' ? isoMs(value) : Number.NaN;
    const ms = unit === 'iso' || !Number.isNaN(iso) ? iso : msOf(value, unit);
    if (Number.isNaN(ms))
      return invalid(`must be ${unit === 'iso' ? 'an ISO 8601 time' : `a number of ${unit}`}, found ${shown(value)}`);
    if (ms < minMs) return invalid(`is ${shown(value)}, before time.minMs (${minMs})`);
    if (ms > MAX_TIME_MS) return invalid(`is ${shown(value)} ${unit}, later than any time we can hold: is the unit right?`);
    const clock = now();
    if (ms > clock + maxFutureMs)
      return invalid(`is ${shown(value)}, ${ms - clock} ms ahead of the clock; time.maxFutureMs allows ${maxFutureMs}`);
    if (ms < LONG_AGO_MS && Number.isNaN(iso) && ms * 1_000 > LONG_AGO_MS && ms * 1_000 <= clock + maxFutureMs)
      onInvalid(
        'eventTime',
        `field '${field}' is ${shown(value)} ${unit}, which is ${dayOf(ms)}; a thousand times that is ${dayOf(1_000 * ms)}: is the unit right?`,
      );
    return ms;
  };
}

const dayOf = (ms: number): string => new Date(ms).toISOString().slice(0, 10);

/** NaN for what is no number. Exact however many digits there are: of a number its shortest text is what was meant. */
function msOf(value: unknown, unit: Exclude<Unit, 'iso'>): number {
  if (typeof value === 'number' && Number.isSafeInteger(value)) {
    if (unit === 'ms') return value;
    if (unit === 's') return value * 1_000;
  }
  const text = typeof value === 'number' ? String(value) : typeof value === 'string' ? value.trim() : '';
  const [, whole, fraction = ''] = /^\+?(\d{1,30})(?:\.(\d{0,30}))?$/.exec(text) ?? [];
  if (whole !== undefined) {
    const shift = 3 - DIGITS[unit];
    return Number(shift >= 0 ? whole + fraction.slice(0, shift).padEnd(shift, '0') : whole.slice(0, shift) || '0');
  }
  // With a sign, or an exponent.
  const number = numberOf(value);
  return Number.isFinite(number) ? Math.floor((number * 1_000) / 10 ** DIGITS[unit]) : Number.NaN;
}
