/** Several files as one source in event-time order: sorted in memory, within a limit. */
import { createHash } from 'node:crypto';
import type { SourceRecord } from '../../schemas/action.ts';
import type { DecodeResult } from '../../schemas/decoded.ts';
import { PipelineError } from '../../schemas/errors.ts';
import { type CompiledMapping, compileMapping, type RecordMappingOptions } from '../../schemas/record-mapping.ts';
import { combineFingerprint } from './fingerprint.ts';
import { openMappedRows, type RowInput } from './read-records.ts';
import { topicsOf } from './topics-of.ts';

export interface FileSourceOptions extends RecordMappingOptions {
  /** Records of all files together that may be held and sorted. @default 5,000,000 */
  readonly maxSortRecords?: number;
}

export interface MergedRecord {
  /** Its position is its own file's: the base name, partition 0, the record's number there. */
  readonly record: SourceRecord;
  readonly fileIndex: number;
}

/** A merged source. A record's index in the merged order is the position that is committed. */
export interface MergedFiles {
  readonly total: number;
  /** Digest of contents and mappings: same fingerprint, same records in the same order. */
  readonly fingerprint: string;
  /** The topic of each file's records, distinct; by file index. */
  readonly topics: readonly string[];
  /** By file index. */
  readonly mappings: readonly CompiledMapping[];
  /** Records `from … to-1` of the merged order; made on the way, the raw rows are what is kept. */
  readonly records: (from?: number, to?: number) => Iterable<MergedRecord>;
  /** Decodes a record with the mapping of its file. */
  readonly decode: (merged: MergedRecord) => DecodeResult;
}

interface LoadedFile {
  readonly topic: string;
  readonly rows: readonly string[];
  readonly toValue: (row: string) => SourceRecord['value'];
  readonly mapping: CompiledMapping;
  readonly contentDigest: string;
}

/**
 * Reads all files and orders their records by event time; ties by file, then by place in the file. A record of several
 * actions stands at the time of its first. One that cannot be decoded, or is ignored, stands right after the one before it in its file, so that it becomes a dead letter in place.
 *
 * The order depends on the contents alone, never on the clock: a position committed yesterday is the same record today.
 *
 * @throws PipelineError `SOURCE_UNREADABLE` for a file that cannot be read or too many records; `CONFIG_INVALID` for a bad
 * mapping or columns it needs and the file lacks
 */
export async function openFileSource(files: readonly RowInput[], options: FileSourceOptions = {}): Promise<MergedFiles> {
  const { maxSortRecords = 5_000_000, ...mappingOptions } = options;
  const topics = topicsOf(files);
  // A bad mapping is reported before the first file is read.
  const mappings = files.map((file) => compileMapping(file.mapping, mappingOptions));
  const loaded: LoadedFile[] = [];
  const times: number[][] = [];
  let total = 0;
  for (const [i, file] of files.entries()) {
    const order = compileMapping(file.mapping, { ...mappingOptions, maxFutureMs: Number.MAX_VALUE });
    const result = await loadFile(file, topics[i]!, mappings[i]!, order, maxSortRecords - total, mappingOptions.maxRecordBytes);
    if (result === undefined) {
      throw new PipelineError(
        'SOURCE_UNREADABLE',
        `the source files hold more than ${maxSortRecords} records (source.maxSortRecords; reached in '${file.path}'), ` +
          'which is what may be sorted in memory: raise it, or split the replay into periods',
      );
    }
    loaded.push(result.file);
    times.push(result.times);
    total += result.file.rows.length;
  }
  const order = sortedOrder(times, total);
  const starts = startsOf(loaded);

  const recordAt = (index: number): MergedRecord => {
    const global = order[index]!;
    const fileIndex = lastAtMost(starts, global);
    const file = loaded[fileIndex]!;
    const offset = global - starts[fileIndex]!;
    return {
      fileIndex,
      record: { position: { topic: file.topic, partition: 0, offset }, value: file.toValue(file.rows[offset]!) },
    };
  };
  return {
    total,
    fingerprint: combineFingerprint(
      files,
      loaded.map((file) => file.contentDigest),
    ),
    topics,
    mappings,
    *records(from = 0, to = total) {
      for (let i = Math.max(0, from); i < Math.min(to, total); i++) yield recordAt(i);
    },
    decode: ({ record, fileIndex }) => mappings[fileIndex]!.decode(record),
  };
}

async function loadFile(
  source: RowInput,
  topic: string,
  mapping: CompiledMapping,
  forOrder: CompiledMapping,
  room: number,
  maxRecordBytes?: number,
): Promise<{ file: LoadedFile; times: number[] } | undefined> {
  const hash = createHash('sha256');
  const { chunks, toValue } = await openMappedRows(source, mapping.fields, maxRecordBytes, hash);
  const rows: string[] = [];
  const times: number[] = [];
  let time = Number.NEGATIVE_INFINITY;
  for await (const chunk of chunks) {
    if (rows.length + chunk.length > room) return undefined;
    for (const row of chunk) {
      const result = forOrder.decode({ position: { topic, partition: 0, offset: rows.length }, value: toValue(row) });
      const [first] = result.ok ? result.actions : [];
      if (first !== undefined) time = first.eventTimeMs;
      rows.push(row);
      times.push(time);
    }
  }
  return { file: { topic, rows, toValue, mapping, contentDigest: hash.digest('hex') }, times };
}

/** Indices into the files laid end to end, by time; equal times keep that order. */
function sortedOrder(times: readonly (readonly number[])[], total: number): Uint32Array {
  const all = new Float64Array(total);
  let at = 0;
  for (const ofFile of times) {
    all.set(ofFile, at);
    at += ofFile.length;
  }
  const order = Uint32Array.from({ length: total }, (_, i) => i);
  for (let i = 1; i < total; i++) {
    // The difference of two infinities is NaN, hence the comparisons.
    if (all[i]! < all[i - 1]!) return order.sort((a, b) => (all[a]! < all[b]! ? -1 : all[a]! > all[b]! ? 1 : a - b));
  }
  return order;
}

function startsOf(files: readonly LoadedFile[]): number[] {
  let start = 0;
  return files.map(({ rows }) => {
    const own = start;
    start += rows.length;
    return own;
  });
}

/** Index of the last entry ≤ `value`; of equal entries (empty files) the last. */
function lastAtMost(starts: readonly number[], value: number): number {
  let index = starts.length - 1;
  while (starts[index]! > value) index--;
  return index;
}
