/** What ClickHouse reads, written out as text: files in its formats, its tables, the answers to queries. Rows never pass through memory whole. */
import { createWriteStream } from 'node:fs';
import type { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { ClickHouseLogLevel, createClient } from '@clickhouse/client';
import { messageOf, PipelineError } from '../../schemas/errors.ts';
import { checkParquetFooter } from '../files/parquet-footer.ts';
import { type ClickHouseConfig, connect } from './connect.ts';

/** A file that the engine reads: containers by their own schema. */
export type EngineFormat = 'Avro' | 'Parquet';

export interface Column {
  readonly name: string;
  readonly type: string;
}

/** Integers beyond 2^53 stay exact as text; times say their zone; rows keep their order, and a query the sorting that it asks for. */
const SETTINGS = [
  'output_format_json_quote_64bit_integers = 1',
  "date_time_output_format = 'iso'",
  'max_threads = 1',
  'input_format_parquet_preserve_order = 1',
  'query_plan_remove_redundant_sorting = 0',
].join(', ');

const LONGEST_MS = 2 ** 31 - 1;

/** What reading one file may hold, whatever the file claims: a row group's columns, unpacked. */
const READING_BYTES = 2 ** 31;
/** How a connection ends whose other side is no more. */
const DEAD = new Set(['ECONNRESET', 'ECONNREFUSED', 'EPIPE']);

/**
 * Writes a local file's rows as JSON lines.
 *
 * @param engine the folder of the engine that reads: its own, so that a file which ends it ends nothing else
 * @throws PipelineError `SOURCE_UNREADABLE` naming the file and what is wrong with it, what the engine said, or that it died
 */
export async function writeFileRows(engine: string, path: string, format: EngineFormat, target: string): Promise<void> {
  await onFile(engine, path, format, (run) =>
    run.command(
      `INSERT INTO FUNCTION file(${text(target)}, 'JSONEachRow') SELECT * FROM file(${text(path)}, '${format}') SETTINGS ${SETTINGS}`,
    ),
  );
}

/** Columns and types of a local file. @throws PipelineError `SOURCE_UNREADABLE` as `writeFileRows` */
export const fileColumns = (engine: string, path: string, format: EngineFormat): Promise<Column[]> =>
  onFile(engine, path, format, (run) => run.rows<Column>(`DESCRIBE file(${text(path)}, '${format}')`));

/**
 * Writes the answer to a SELECT as JSON lines.
 *
 * @throws PipelineError `SOURCE_UNREADABLE` with what ClickHouse said; `STORE_UNAVAILABLE` where it cannot be reached
 */
export async function writeQueryRows(config: ClickHouseConfig, name: string, select: string, target: string): Promise<void> {
  try {
    if (config.url !== undefined) await streamRows(config, config.url, select, target);
    else
      await withEngine(config.path, config.database, (run) =>
        run.command(`INSERT INTO FUNCTION file(${text(target)}, 'JSONEachRow') ${select} SETTINGS ${SETTINGS}`),
      );
  } catch (cause) {
    if (cause instanceof PipelineError) throw cause;
    throw new PipelineError('SOURCE_UNREADABLE', `cannot read '${name}' from ClickHouse: ${short(cause)}`, { cause });
  }
}

async function streamRows(config: ClickHouseConfig, url: string, select: string, target: string): Promise<void> {
  const { database, username, password } = config;
  const client = createClient({
    url,
    database,
    request_timeout: LONGEST_MS,
    log: { level: ClickHouseLogLevel.OFF },
    ...(username !== undefined && { username }),
    ...(password !== undefined && { password }),
  });
  try {
    const { stream } = await client.exec({ query: `${select} SETTINGS ${SETTINGS} FORMAT JSONEachRow` });
    await pipeline(stream as Readable, createWriteStream(target));
  } finally {
    await client.close();
  }
}

type Engine = Awaited<ReturnType<typeof connect>>;

async function withEngine<T>(
  path: string,
  database: string,
  work: (engine: Engine) => Promise<T>,
  limit: { readonly memoryBytes?: number } = {},
): Promise<T> {
  const engine = await connect({ path, database }, { migrate: false, requestTimeoutMs: LONGEST_MS, ...limit });
  try {
    return await work(engine);
  } finally {
    await engine.close();
  }
}

async function onFile<T>(engine: string, path: string, format: EngineFormat, work: (engine: Engine) => Promise<T>): Promise<T> {
  if (format === 'Parquet') await checkParquetFooter(path);
  try {
    return await withEngine(engine, 'default', work, { memoryBytes: READING_BYTES });
  } catch (cause) {
    if (cause instanceof PipelineError) throw cause;
    if (DEAD.has((cause as NodeJS.ErrnoException).code ?? ''))
      throw new PipelineError(
        'SOURCE_UNREADABLE',
        `the engine died reading source file '${path}' as ${format}; it may hold ${READING_BYTES / 2 ** 20} MiB for a file, and the file is damaged or needs more`,
        { cause },
      );
    throw new PipelineError('SOURCE_UNREADABLE', `cannot read source file '${path}' as ${format}: ${short(cause)}`, { cause });
  }
}

/** A literal. */
const text = (value: string): string => `'${value.replace(/[\\']/g, '\\$&')}'`;

const short = (cause: unknown): string => messageOf(cause).split('\n')[0]!.slice(0, 400);
