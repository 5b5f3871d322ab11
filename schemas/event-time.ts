/** Reads the time of an event exactly, and refuses one that cannot be true. */
import type { KindMapping } from './mapping-config.ts';
import { compilePath, Fault, missing, numberOf, type Row, shown } from './record-fields.ts';

/** The last millisecond that the stores can hold (2286-11-20). */
const MAX_TIME_MS = 9_999_999_999_999;

export interface TimeBounds {
  /** Earliest credible event time, ms since the epoch. @default 0 */
  readonly minMs?: number;
  /** How far ahead of `now` an event may lie, ms. @default one day */
  readonly maxFutureMs?: number;
  /** The clock, ms since the epoch. @default Date.now */
  readonly now?: () => number;
}

/** Reads a field as a time, ms since the epoch: a whole number of its unit, or ISO 8601 text. */
export function compileTime(
  { field, unit }: KindMapping['eventTime'],
  { minMs = 0, maxFutureMs = 86_400_000, now = Date.now }: TimeBounds,
): (row: Row) => number | Fault {
  const read = compilePath(field);
  const invalid = (problem: string) => new Fault('TIME_INVALID', `field '${field}' ${problem}`);
  return (row) => {
    const value = read(row);
    if (value === undefined || value === null || value === '') return missing(field);
    let ms: number;
    if (unit === 'iso') {
      ms = typeof value === 'string' ? isoMs(value) : Number.NaN;
      if (Number.isNaN(ms)) return invalid(`must be an ISO 8601 time, found ${shown(value)}`);
    } else {
      const number = numberOf(value);
      if (!Number.isInteger(number)) return invalid(`must be a whole number of ${unit}, found ${shown(value)}`);
      ms = unit === 'ms' ? number : unit === 's' ? number * 1_000 : Math.floor(number / 1_000);
    }
    if (ms < minMs) return invalid(`is ${shown(value)}, before time.minMs (${minMs})`);
    if (ms > MAX_TIME_MS) return invalid(`is ${shown(value)} ${unit}, later than any time we can hold: is the unit right?`);
    const clock = now();
    if (ms > clock + maxFutureMs)
      return invalid(`is ${shown(value)}, ${ms - clock} ms ahead of the clock; time.maxFutureMs allows ${maxFutureMs}`);
    return ms;
  };
}

const ISO = /^(\d{4})-(\d\d)-(\d\d)(?:[T ](\d\d):(\d\d)(?::(\d\d)(?:[.,](\d{1,9}))?)?\s?(Z|z|[+-]\d\d(?::?\d\d)?)?)?$/;

/** ISO 8601 to ms, without the engine's leniency (a 30th of February is no date) and without the machine's time zone. */
function isoMs(text: string): number {
  const match = ISO.exec(text.trim());
  if (match === null) return Number.NaN;
  const [, year, month, day, hour = '0', minute = '0', second = '0', fraction = '', zone = 'Z'] = match;
  const midnight = Date.UTC(Number(year), Number(month) - 1, Number(day));
  const date = new Date(midnight);
  if (date.getUTCMonth() !== Number(month) - 1 || date.getUTCDate() !== Number(day)) return Number.NaN;
  if (Number(hour) > 23 || Number(minute) > 59 || Number(second) > 60) return Number.NaN;
  const sinceMidnight =
    Number(hour) * 3_600_000 + Number(minute) * 60_000 + Number(second) * 1_000 + Number(fraction.slice(0, 3).padEnd(3, '0'));
  return midnight + sinceMidnight - zoneMs(zone);
}

function zoneMs(zone: string): number {
  if (zone === 'Z' || zone === 'z') return 0;
  const digits = zone.slice(1).replace(':', '').padEnd(4, '0');
  const minutes = Number(digits.slice(0, 2)) * 60 + Number(digits.slice(2));
  return (zone[0] === '-' ? -minutes : minutes) * 60_000;
}
