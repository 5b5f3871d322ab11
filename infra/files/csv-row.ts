/** One CSV row to a record by the header's names. */
import { parse } from 'csv-parse/sync';
import { PipelineError } from '../../schemas/errors.ts';

/** A parsed row, or the raw text of one that does not fit the header: the decoder makes a dead letter of it. */
export type CsvRow = Readonly<Record<string, string>> | string;

/**
 * The column names of a header row.
 *
 * @throws PipelineError `SOURCE_UNREADABLE` when it is no CSV row or names a column twice
 */
export function parseCsvHeader(path: string, row: string): string[] {
  const names = cellsOf(row)?.map((name) => name.trim());
  const unreadable = (problem: string) =>
    new PipelineError('SOURCE_UNREADABLE', `cannot read source file '${path}': its header row ${problem}`);
  if (names === undefined) throw unreadable(`is not valid CSV: ${row.slice(0, 80)}`);
  const twice = names.find((name, i) => name !== '' && names.indexOf(name) !== i);
  if (twice !== undefined) throw unreadable(`names the column '${twice}' twice`);
  return names;
}

/** Never throws: a row of the wrong length or with broken quotes comes back as its raw text. */
export function parseCsvRow(header: readonly string[], row: string): CsvRow {
  const cells = cellsOf(row);
  if (cells === undefined || cells.length !== header.length) return row;
  const record: Record<string, string> = {};
  for (let i = 0; i < header.length; i++) record[header[i]!] = cells[i]!;
  return record;
}

/** Rows without quotes, nearly all of them, need no parser. */
function cellsOf(row: string): string[] | undefined {
  if (!row.includes('"')) return row.split(',');
  try {
    const rows = parse(row) as string[][];
    return rows.length === 1 ? rows[0] : undefined;
  } catch {
    return undefined;
  }
}
