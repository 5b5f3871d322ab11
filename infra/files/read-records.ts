/** CSV and JSON-lines files as records: streaming, and never stopped by a bad row. */
import type { Hash } from 'node:crypto';
import { basename, join } from 'node:path';
import type { SourceRecord } from '../../schemas/action.ts';
import type { FileSource } from '../../schemas/config.ts';
import { PipelineError } from '../../schemas/errors.ts';
import { UnreadableRow } from '../../schemas/unreadable-row.ts';
import { type CsvForm, csvRowParser, parseCsvHeader } from './csv-row.ts';
import { readText } from './read-text.ts';
import { RowSplitter } from './split-rows.ts';
import { makeWorkFolder, removeWorkFolder } from './work-folder.ts';

/** A file of text, or something that is written as one before it is read. */
export interface RowInput {
  /** Of messages, and by its base name of positions. */
  readonly path: string;
  /** As configured: a part of the source's identity. */
  readonly format: string;
  readonly mapping: FileSource['mapping'];
  /** Of text: how it is encoded. @default by its first bytes */
  readonly encoding?: string | undefined;
  /** Of CSV: how it is written. @default as most are */
  readonly csv?: Partial<NonNullable<FileSource['csv']>> | undefined;
  /** As JSON lines. Absent: `path` itself is text. */
  readonly spooled?: Spooled;
}

/** Rows that another program writes out. They lie on disk while they are read, never whole in memory. */
interface Spooled {
  /** Where the file is made; it is removed when it was read. */
  readonly folder: string;
  /** @throws PipelineError `SOURCE_UNREADABLE`, `CONFIG_INVALID` */
  readonly write: (path: string) => Promise<void>;
}

export interface ReadFileOptions {
  /** A longer row is cut just beyond this, and passed on raw, so that it is decoded to `RECORD_TOO_LARGE`. @default 1 MiB */
  readonly maxRecordBytes?: number;
  /** Name of the records' topic. @default the file's base name */
  readonly topic?: string;
}

/** The raw rows of a file, and how to read one. */
export interface RawRows {
  /** Undefined for JSON lines, and for a CSV file without any row. */
  readonly header: readonly string[] | undefined;
  /** Chunks of raw rows: lines of JSON, or CSV rows without the header. Can be read once. */
  readonly chunks: AsyncIterable<readonly string[]>;
  /** The value of a record, made of its raw row; never throws. */
  readonly toValue: (row: string) => SourceRecord['value'];
}

/**
 * Opens a file and reads its header.
 *
 * @throws PipelineError `SOURCE_UNREADABLE` naming the path and the reason; from `chunks` too
 */
export async function openRawRows(
  { path, format: given, spooled, encoding, csv = {} }: Omit<RowInput, 'mapping'>,
  maxRecordBytes = 1_048_576,
  hash?: Hash,
): Promise<RawRows> {
  const format = spooled === undefined ? given : 'jsonl';
  const { separator, comment, skipLines = 0, columns } = csv;
  const splitter = new RowSplitter({ quoted: format === 'csv', separator, comment, skipLines, maxRowChars: maxRecordBytes });
  const text = spooled === undefined ? readText(path, hash, encoding) : readSpooled(spooled, hash);
  const chunks = rowChunks(text, splitter);
  const first = (await chunks.next()).value ?? [];
  const readable =
    (toValue: (row: string) => SourceRecord['value']): RawRows['toValue'] =>
    (row) =>
      row.includes(NO_TEXT) ? new UnreadableRow(row, `holds bytes that are no text in ${encoding ?? 'UTF-8'}`) : toValue(row);
  if (format === 'jsonl') return { header: undefined, chunks: startingWith(first, chunks), toValue: readable((row) => row) };
  if (first.length === 0 && columns === undefined) return { header: undefined, chunks, toValue: (row) => row };
  const header = columns ?? (await headerOf(path, first[0]!, csv, chunks));
  const parse = csvRowParser(header, csv);
  return {
    header,
    chunks: startingWith(columns === undefined ? first.slice(1) : first, chunks),
    toValue: readable((row) => (row.length > maxRecordBytes ? row : parse(row))),
  };
}

/** What a decoder puts in the place of bytes that are no text: two users whose ids are no text would be one. */
const NO_TEXT = '\ufffd';

/** Records of a CSV file with a header row: offset 0 is the first row after it. @throws PipelineError `SOURCE_UNREADABLE` */
export const readCsv = (path: string, options: ReadFileOptions = {}): AsyncIterable<SourceRecord> =>
  readRecords(path, 'csv', options);

/** Records of a file with one JSON object a line; empty lines do not count. @throws PipelineError `SOURCE_UNREADABLE` */
export const readJsonLines = (path: string, options: ReadFileOptions = {}): AsyncIterable<SourceRecord> =>
  readRecords(path, 'jsonl', options);

async function* readRecords(path: string, format: 'csv' | 'jsonl', options: ReadFileOptions): AsyncGenerator<SourceRecord> {
  const topic = options.topic ?? basename(path);
  const { chunks, toValue } = await openRawRows({ path, format }, options.maxRecordBytes);
  let offset = 0;
  for await (const rows of chunks)
    for (const row of rows) yield { position: { topic, partition: 0, offset: offset++ }, value: toValue(row) };
}

async function headerOf(path: string, row: string, form: CsvForm, chunks: AsyncGenerator): Promise<string[]> {
  try {
    return parseCsvHeader(path, row, form);
  } catch (error) {
    await chunks.return(undefined);
    throw error;
  }
}

async function* readSpooled({ folder, write }: Spooled, hash?: Hash): AsyncGenerator<string> {
  const own = makeWorkFolder(folder, 'rows');
  try {
    const path = join(own, 'rows');
    await write(path);
    yield* readText(path, hash);
  } finally {
    removeWorkFolder(own);
  }
}

/** Never an empty chunk. */
async function* rowChunks(texts: AsyncIterable<string>, splitter: RowSplitter): AsyncGenerator<string[], undefined> {
  for await (const text of texts) {
    const rows = splitter.push(text).filter(notBlank);
    if (rows.length > 0) yield rows;
  }
  const rest = splitter.end().filter(notBlank);
  if (rest.length > 0) yield rest;
}

const notBlank = (row: string): boolean => row.trim() !== '';

async function* startingWith(
  first: readonly string[],
  rest: AsyncGenerator<readonly string[]>,
): AsyncGenerator<readonly string[]> {
  try {
    if (first.length > 0) yield first;
    yield* rest;
  } finally {
    // Whoever stops at the first chunk has not begun with the rest, which holds the file, and what was written out.
    await rest.return(undefined);
  }
}

/**
 * Opens an input that a mapping reads.
 *
 * @param named columns that the mapping needs
 * @throws PipelineError as `openRawRows`, and `CONFIG_INVALID` for columns that are not there; nothing stays open then
 */
export async function openMappedRows(
  input: RowInput,
  named: readonly string[],
  maxRecordBytes?: number,
  hash?: Hash,
): Promise<RawRows> {
  const raw = await openRawRows(input, maxRecordBytes, hash);
  try {
    checkColumns(input.path, raw.header, named);
    return raw;
  } catch (error) {
    for await (const _ of raw.chunks) break;
    throw error;
  }
}

/** @throws PipelineError `CONFIG_INVALID` when the mapping names columns that the header lacks: all of them */
export function checkColumns(path: string, header: readonly string[] | undefined, named: readonly string[]): void {
  if (header === undefined) return;
  const absent = named.filter((field) => !header.includes(field));
  if (absent.length === 0) return;
  throw new PipelineError(
    'CONFIG_INVALID',
    `the mapping of '${path}' needs ${absent.map((name) => `'${name}'`).join(', ')}; its columns are ${header.map((name) => `'${name}'`).join(', ')}`,
  );
}
