/** What a file says of a catalogue's entities, line by line: JSON lines, or CSV by its name. */
import { csvRowParser, parseCsvHeader } from '../infra/files/csv-row.ts';
import { readLines } from '../infra/files/read-lines.ts';
import { type EntityUpdateResult, parseEntityUpdate } from '../schemas/catalogue.ts';
import { entityUpdateOfRow } from '../schemas/catalogue-csv.ts';
import { UnreadableRow } from '../schemas/unreadable-row.ts';

/** Longest line, bytes: 10,000 numbers and a name. */
const MAX_LINE_BYTES = 2 ** 20;

interface Line {
  /** Of the file, from 1. */
  readonly number: number;
  readonly parsed: EntityUpdateResult;
}

/** @throws PipelineError `SOURCE_UNREADABLE`, also for a CSV header that names other columns */
export async function* readEntityUpdates(file: string): AsyncGenerator<Line> {
  const isCsv = /\.csv(\.gz)?$/i.test(file);
  let parse: ((line: string) => EntityUpdateResult) | undefined = isCsv ? undefined : parseEntityUpdate;
  for await (const { line, number } of readLines(file, MAX_LINE_BYTES)) {
    if (parse === undefined) parse = rowParser(file, line ?? '', number);
    else yield { number, parsed: line === undefined ? malformed(`longer than ${MAX_LINE_BYTES} bytes`) : parse(line) };
  }
}

function rowParser(file: string, header: string, number: number): (line: string) => EntityUpdateResult {
  const columns = parseCsvHeader(file, header);
  const toUpdate = entityUpdateOfRow(columns, `cannot read '${file}', line ${number}`);
  const parse = csvRowParser(columns);
  return (line) => {
    const row = parse(line);
    return row instanceof UnreadableRow ? malformed(row.problem) : toUpdate(row);
  };
}

const malformed = (message: string): EntityUpdateResult => ({ ok: false, reason: 'malformed', message });
