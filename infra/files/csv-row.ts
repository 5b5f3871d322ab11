/** One CSV row to a record by the names of its columns. */
import { CsvError, parse } from 'csv-parse/sync';
import { PipelineError } from '../../schemas/errors.ts';
import { UnreadableRow } from '../../schemas/unreadable-row.ts';

/** How a file of rows is written, where it is not as most are. */
export interface CsvForm {
  /** Between two fields. @default ',' */
  readonly separator?: string;
  /** Texts that mean no value. @default the empty text alone */
  readonly nullTexts?: readonly string[];
}

/** A parsed row, or one that does not fit the columns: the decoder makes a dead letter of it. */
export type CsvRow = Readonly<Record<string, string>> | UnreadableRow;

/**
 * The column names of a header row.
 *
 * @throws PipelineError `SOURCE_UNREADABLE` when it is no CSV row or names a column twice
 */
export function parseCsvHeader(path: string, row: string, form: CsvForm = {}): string[] {
  const cells = cellsOf(row, form);
  const unreadable = (problem: string) =>
    new PipelineError('SOURCE_UNREADABLE', `cannot read source file '${path}': its header row ${problem}`);
  if (typeof cells === 'string') throw unreadable(`is not valid CSV (${cells}): ${JSON.stringify(row.slice(0, 80))}`);
  const names = cells.map((name) => name.trim());
  const twice = names.find((name, i) => name !== '' && names.indexOf(name) !== i);
  if (twice !== undefined) throw unreadable(`names the column '${twice}' twice`);
  return names;
}

/** A reader of rows under these columns; never throws. */
export function csvRowParser(columns: readonly string[], form: CsvForm = {}): (row: string) => CsvRow {
  const nulls = new Set(form.nullTexts);
  return (row) => {
    const cells = cellsOf(row, form);
    if (typeof cells === 'string') return new UnreadableRow(row, cells);
    if (cells.length !== columns.length)
      return new UnreadableRow(
        row,
        `has ${cells.length} field(s) for ${columns.length} columns (${columns.slice(0, 8).join(', ')}${columns.length > 8 ? ', …' : ''})`,
      );
    const record: Record<string, string> = {};
    for (let i = 0; i < columns.length; i++) record[columns[i]!] = nulls.has(cells[i]!) ? '' : cells[i]!;
    return record;
  };
}

const PROBLEMS: Readonly<Record<string, string>> = {
  CSV_QUOTE_NOT_CLOSED: 'a quote is not closed',
  CSV_INVALID_CLOSING_QUOTE: 'a quote inside a quoted field is not doubled',
  INVALID_OPENING_QUOTE: 'a quote stands inside a field that does not begin with one',
};

/** The fields, or what is wrong. Rows without quotes, nearly all of them, need no parser. */
function cellsOf(row: string, { separator = ',' }: CsvForm): string[] | string {
  if (!row.includes('"')) return row.split(separator);
  try {
    const rows = parse(row, { delimiter: separator }) as string[][];
    return rows.length === 1 ? rows[0]! : `holds ${rows.length} rows: a quote is not closed before it`;
  } catch (thrown) {
    const code = thrown instanceof CsvError ? thrown.code : '';
    return PROBLEMS[code] ?? `is not valid CSV: ${(thrown as Error).message.slice(0, 120)}`;
  }
}
