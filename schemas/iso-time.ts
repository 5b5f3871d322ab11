/** ISO 8601 as databases, Java and Go print it. */

const DATE = /^(\d{4})([-/]?)(\d\d)\2(\d\d)/;
const TIME = /^[Tt ](\d\d)(?::?(\d\d)(?::?(\d\d)(?:[.,](\d{1,9}))?)?)?/;
/** An offset, or a name of Greenwich's; behind an offset a name may follow, which says nothing new. */
const ZONE = /^\s?(?:(Z|UTC|GMT)(?:\[[\w/+-]+\])?|([+-]\d\d(?::?\d\d)?)(?: [A-Z]{2,5})?(?:\[[\w/+-]+\])?)$/i;

/**
 * Text to ms, without the engine's leniency (a 30th of February is no date) and without the machine's time zone: a time without a zone is
 * UTC. Fractions of a millisecond are cut. NaN for anything else; a name of a zone alone (`[Europe/Berlin]`) is no offset.
 */
export function isoMs(given: string): number {
  const text = given.trim();
  const date = DATE.exec(text);
  if (date === null) return Number.NaN;
  const [whole, year, separator, month, day] = date;
  const midnight = Date.UTC(Number(year), Number(month) - 1, Number(day));
  const found = new Date(midnight);
  if (found.getUTCMonth() !== Number(month) - 1 || found.getUTCDate() !== Number(day)) return Number.NaN;
  const behind = text.slice(whole.length);
  // Eight digits alone are a number.
  if (behind === '') return separator === '' ? Number.NaN : midnight;
  const time = TIME.exec(behind);
  if (time === null) return Number.NaN;
  const [taken, hour, minute = '0', second = '0', fraction = ''] = time;
  const [h, m, s] = [Number(hour), Number(minute), Number(second)];
  const isEndOfDay = h === 24 && m === 0 && s === 0 && /^0*$/.test(fraction);
  if ((h > 23 && !isEndOfDay) || m > 59 || s > 60) return Number.NaN;
  const rest = behind.slice(taken.length);
  const zone = rest === '' ? 0 : zoneMs(rest);
  return midnight + h * 3_600_000 + m * 60_000 + s * 1_000 + Number(fraction.slice(0, 3).padEnd(3, '0')) - zone;
}

function zoneMs(text: string): number {
  const zone = ZONE.exec(text);
  if (zone === null) return Number.NaN;
  const [, , offset] = zone;
  if (offset === undefined) return 0;
  const digits = offset.slice(1).replace(':', '').padEnd(4, '0');
  const minutes = Number(digits.slice(0, 2)) * 60 + Number(digits.slice(2));
  return (offset[0] === '-' ? -minutes : minutes) * 60_000;
}
