/** Updates of a catalogue as rows of CSV: the columns of `EntityUpdate`, a number of the content each. An empty cell says nothing. */
import { type EntityUpdateResult, toEntityUpdate } from './catalogue.ts';
import { PipelineError } from './errors.ts';

const PLAIN = ['entity', 'popularity', 'retired', 'removed'];
const CONTENT = /^content\.(\d+)$/;
const FIELD = /^fields\.(.+)$/;

/**
 * How a row of these columns becomes an update; the reader never throws.
 *
 * @param origin file and line of the header, for the message
 * @throws PipelineError `SOURCE_UNREADABLE` that says all that is wrong with the columns
 */
export function entityUpdateOfRow(
  columns: readonly string[],
  origin: string,
): (row: Readonly<Record<string, string>>) => EntityUpdateResult {
  const content = columns.filter((name) => CONTENT.test(name)).map((name) => Number(CONTENT.exec(name)![1]));
  const fields = columns.flatMap((name) => FIELD.exec(name)?.[1] ?? []);
  const problems = columns
    .filter((name) => !PLAIN.includes(name) && !CONTENT.test(name) && !FIELD.test(name))
    .map((name) => `column '${name}'; allowed: ${PLAIN.join(', ')}, fields.NAME, content.0, content.1, …`);
  if (!columns.includes('entity')) problems.push("no column 'entity'");
  const absent = content.findIndex((_, i) => !content.includes(i));
  if (absent >= 0) problems.push(`${content.length} columns of content, and no content.${absent}`);
  if (problems.length > 0)
    throw new PipelineError('SOURCE_UNREADABLE', [`${origin}: ${problems.length} problem(s)`, ...problems].join('\n  '));
  return (row) => toEntityUpdate(fieldsOf(row, content.length, fields));
}

function fieldsOf(row: Readonly<Record<string, string>>, dimension: number, names: readonly string[]): object {
  const { entity, popularity = '', retired = '', removed = '' } = row;
  const content = Array.from({ length: dimension }, (_, i) => row[`content.${i}`]!);
  const said = names.filter((name) => row[`fields.${name}`] !== '');
  return {
    entity,
    ...(popularity !== '' && { popularity: numberOf(popularity) }),
    ...(retired !== '' && { retired: flagOf(retired) }),
    ...(removed !== '' && { removed: flagOf(removed) }),
    ...(said.length > 0 && { fields: Object.fromEntries(said.map((name) => [name, fieldOf(row[`fields.${name}`]!)])) }),
    ...(content.some((cell) => cell !== '') && { content: content.map(numberOf) }),
  };
}

/** A cell that is no number stays text, for the message. */
function numberOf(cell: string): number | string {
  const value = Number(cell);
  return cell.trim() === '' || !Number.isFinite(value) ? cell : value;
}

/** `true`, `false`, a number as JSON writes it, several values with `|` between them, or text as it is. */
function fieldOf(cell: string): boolean | number | string | readonly string[] {
  if (cell === 'true' || cell === 'false') return cell === 'true';
  if (/^-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?$/.test(cell)) return Number(cell);
  return cell.includes('|') ? cell.split('|') : cell;
}

function flagOf(cell: string): boolean | string {
  const flag = cell.trim().toLowerCase();
  return flag === 'true' || (flag === 'false' ? false : cell);
}
