/** A user's sequence as records: a small head that every event rewrites, and full pages that are written once. */
import { PipelineError } from '../schemas/errors.ts';
import { DIGEST_PAGE } from '../schemas/sequence-digest.ts';
import type { StateChange, StateReader } from '../schemas/state.ts';
import { BlockWindow, type WindowContents, type WindowOptions, windowStartOf } from './block-window.ts';
import type { PageChanges } from './page-marks.ts';
import { SEEN_PAGE, SeenList, seenStartOf } from './seen-list.ts';
import { corrupted, RecordReader, RecordWriter } from './state-bytes.ts';
import { type RecordKind, UserKeys } from './state-keys.ts';
import { UserSequence, type UserSequenceOptions } from './user-sequence.ts';

/** How the times of a run of events are written: as differences of integers, or each as it is. */
const TIMES = { exact: 0, float: 1 } as const;
const MAX_EXACT_TIME = 2 ** 50;
const isExact = (timeMs: number): boolean =>
  Number.isInteger(timeMs) && Math.abs(timeMs) <= MAX_EXACT_TIME && !Object.is(timeMs, -0);

/** Where the entries begin that are in no full page, of a list that holds `[start, end)`. */
const tailStart = (start: number, end: number, pageLength: number): number =>
  Math.max(start, pageLength * Math.floor(end / pageLength));

/** One for all: a record is written from begin to end at once. */
const writer = new RecordWriter();

/**
 * What changed of a user since the last call, as records; afterwards the sequence counts as written.
 *
 * An append writes the head, and a page that it fills. A late event writes the pages from its place on, a slide removes
 * those that lie before the window. A sequence without events removes every record of those it replaced. Nothing changed:
 * no records. The ids of dropped events that may still come again are in the head; they are few unless many events of a
 * user have the same time.
 */
export function changesOf(userId: string, sequence: UserSequence): StateChange[] {
  const { tokens, kept, seen } = sequence.parts;
  if (!tokens.marks.changed && !kept.marks.changed && !seen.marks.changed) return [];
  const isStored = hasRecords(sequence);
  const keys = new UserKeys(userId);
  const changes: StateChange[] = [];
  const pages = (kind: RecordKind, { written, removed }: PageChanges, write: (page: number) => void) => {
    for (const page of removed) changes.push({ key: keys.key(kind, page), value: null });
    for (const page of written) {
      const key = keys.key(kind, page);
      writer.begin();
      write(page);
      changes.push({ key, value: writer.end(key) });
    }
  };
  pages('tokens', tokens.marks.take(tokens.start, tokens.accepted), (page) => writeWindowPage(tokens, page));
  pages('kept', kept.marks.take(kept.start, kept.accepted), (page) => writeWindowPage(kept, page));
  pages('seen', seen.marks.take(seen.start, seen.end), (page) => writeSeenPage(seen, page));

  const key = keys.key('head');
  if (!sequence.isEmpty) changes.push({ key, value: headRecord(key, keys.hashed ? userId : '', sequence) });
  else if (isStored) changes.push({ key, value: null });
  return changes;
}

/** Whether records of this sequence, or of one that it replaced, were written. */
export function hasRecords(sequence: UserSequence): boolean {
  const { tokens, kept } = sequence.parts;
  return tokens.marks.storedEnd > 0 || kept.marks.storedEnd > 0;
}

function headRecord(key: Uint8Array, id: string, sequence: UserSequence): Uint8Array {
  const { tokens, kept, seen } = sequence.parts;
  writer.begin();
  writer.id(id);
  writeWindowHead(tokens);
  writeWindowHead(kept);
  writer.varint(seen.end);
  writer.varint(seen.start);
  writeNumbers(seen.values.subarray(tailStart(seen.start, seen.end, SEEN_PAGE) - seen.start));
  writer.uint32(sequence.digestState.high);
  writer.uint32(sequence.digestState.low);
  return writer.end(key);
}

function writeWindowHead(window: BlockWindow): void {
  const { accepted, start, droppedTimeMs } = window;
  writer.varint(accepted);
  writer.varint(start);
  if (start > 0) {
    writer.float64(droppedTimeMs);
    const ids = [...window.droppedIds];
    writer.varint(ids.length);
    for (const id of ids) writer.id(id);
  }
  writeEvents(window, tailStart(start, accepted, DIGEST_PAGE), accepted);
}

/** A page whose first events were dropped before it was written begins later. */
function writeWindowPage(window: BlockWindow, page: number): void {
  const first = page * DIGEST_PAGE;
  const from = Math.max(first, window.start);
  writer.varint(from - first);
  writeEvents(window, from, first + DIGEST_PAGE);
}

function writeSeenPage({ values, start }: SeenList, page: number): void {
  const first = page * SEEN_PAGE;
  const from = Math.max(first, start);
  writer.varint(from - first);
  writeNumbers(values.subarray(from - start, first + SEEN_PAGE - start));
}

function writeNumbers(values: Int32Array): void {
  for (const value of values) writer.varint(value >>> 0);
}

/** `from` and `to` count from the first event ever accepted. */
function writeEvents({ entities, timesMs, eventIds, start }: WindowContents, from: number, to: number): void {
  const times = timesMs.subarray(from - start, to - start);
  const exact = times.every(isExact);
  writer.varint(exact ? TIMES.exact : TIMES.float);
  let previousMs = 0;
  for (let i = from - start; i < to - start; i++) {
    const timeMs = timesMs[i]!;
    if (exact) writer.signed(timeMs - previousMs);
    else writer.float64(timeMs);
    previousMs = timeMs;
    writer.varint(entities[i]! >>> 0);
    writer.id(eventIds[i]!);
  }
}

/**
 * The user's sequence as it was when its records were last taken; undefined for a user without records.
 *
 * - **time** one `get`, and one for every full page in the window and in the seen list
 *
 * @throws PipelineError `STATE_CORRUPTED`, naming the key, for a record that is missing or is not as it was written
 * @throws PipelineError `STATE_INCOMPATIBLE` for records of another format, window or `seenLimit`
 */
export function loadSequence(userId: string, store: StateReader, options: UserSequenceOptions): UserSequence | undefined {
  const keys = new UserKeys(userId);
  const headKey = keys.key('head');
  const record = store.get(headKey);
  if (record === undefined) return undefined;
  const head = decode(headKey, record, (reader) => ({
    id: reader.id(),
    tokens: readWindowHead(reader, options.window),
    kept: readWindowHead(reader, options.window),
    seen: readSeenHead(reader, options.seenLimit),
    high: reader.uint32(),
    low: reader.uint32(),
  }));
  if (head.id !== (keys.hashed ? userId : '')) throw corrupted(headKey, 'is of another user');
  const { seen } = head;
  readSeenPages(store, keys, seen.start, seen.values);
  const sequence = new UserSequence(options, {
    tokens: BlockWindow.restored(options.window, readWindowPages(store, keys, 'tokens', head.tokens)),
    kept: BlockWindow.restored(options.window, readWindowPages(store, keys, 'kept', head.kept)),
    seen: SeenList.restored(options.seenLimit, seen.start, seen.values),
  });
  const { high, low } = sequence.digestState;
  if (high !== head.high || low !== head.low) throw corrupted(headKey, 'does not have the digest of its tokens');
  return sequence;
}

/** A window being read: the arrays are filled page by page. */
interface OpenWindow extends WindowContents {
  readonly eventIds: string[];
}

function decode<T>(key: Uint8Array, record: Uint8Array | undefined, read: (reader: RecordReader) => T): T {
  if (record === undefined) throw corrupted(key, 'is missing');
  const reader = new RecordReader(key, record);
  try {
    const value = read(reader);
    reader.end();
    return value;
  } catch (cause) {
    if (cause instanceof PipelineError) throw cause;
    throw corrupted(key, 'does not hold what it should', cause);
  }
}

function requireStart(what: string, start: number, expected: number): void {
  if (start !== expected)
    throw new PipelineError(
      'STATE_INCOMPATIBLE',
      `the stored state has ${start} ${what} forgotten where this configuration makes it ${expected}: restore window and sequence.seenLimit, or reset the state`,
    );
}

function readWindowHead(reader: RecordReader, options: WindowOptions): OpenWindow {
  const accepted = reader.varint();
  const start = reader.varint();
  requireStart('events', start, windowStartOf(accepted, options));
  const droppedTimeMs = start > 0 ? reader.float64() : Number.NEGATIVE_INFINITY;
  const droppedIds = start > 0 ? Array.from({ length: reader.varint() }, () => reader.id()) : [];
  const length = accepted - start;
  const window: OpenWindow = {
    accepted,
    start,
    droppedTimeMs,
    droppedIds,
    entities: new Int32Array(length),
    timesMs: new Float64Array(length),
    eventIds: new Array<string>(length).fill(''),
  };
  readEvents(reader, window, tailStart(start, accepted, DIGEST_PAGE), accepted);
  return window;
}

function readSeenHead(reader: RecordReader, seenLimit: number): { readonly start: number; readonly values: Int32Array } {
  const end = reader.varint();
  const start = reader.varint();
  requireStart('seen entities', start, seenStartOf(end, seenLimit));
  const values = new Int32Array(end - start);
  for (let i = tailStart(start, end, SEEN_PAGE); i < end; i++) values[i - start] = reader.varint();
  return { start, values };
}

function readWindowPages(store: StateReader, keys: UserKeys, kind: RecordKind, window: OpenWindow): OpenWindow {
  forEachPage(window.start, window.accepted, DIGEST_PAGE, (page) => {
    const key = keys.key(kind, page);
    decode(key, store.get(key), (reader) =>
      readEvents(reader, window, page * DIGEST_PAGE + reader.varint(), (page + 1) * DIGEST_PAGE),
    );
  });
  return window;
}

function readSeenPages(store: StateReader, keys: UserKeys, start: number, values: Int32Array): void {
  forEachPage(start, start + values.length, SEEN_PAGE, (page) => {
    const key = keys.key('seen', page);
    decode(key, store.get(key), (reader) => {
      const from = page * SEEN_PAGE + reader.varint();
      requireWhole(from, page, SEEN_PAGE, start);
      for (let i = from; i < (page + 1) * SEEN_PAGE; i++) {
        const value = reader.varint();
        if (i >= start) values[i - start] = value;
      }
    });
  });
}

/** The full pages of a list that holds `[start, end)`. */
function forEachPage(start: number, end: number, pageLength: number, visit: (page: number) => void): void {
  for (let page = Math.floor(start / pageLength); page < Math.floor(end / pageLength); page++) visit(page);
}

/** @throws RangeError if a page that begins at `from` lacks entries that the window holds */
function requireWhole(from: number, page: number, pageLength: number, start: number): void {
  if (from > Math.max(page * pageLength, start)) throw new RangeError('a page begins after what it should hold');
}

/** Reads events `[from, to)`, and passes over those that have been dropped since they were written. */
function readEvents(reader: RecordReader, { entities, timesMs, eventIds, start }: OpenWindow, from: number, to: number): void {
  requireWhole(from, Math.floor(from / DIGEST_PAGE), DIGEST_PAGE, start);
  const exact = reader.varint() === TIMES.exact;
  let timeMs = 0;
  for (let i = from; i < to; i++) {
    timeMs = exact ? timeMs + reader.signed() : reader.float64();
    const entity = reader.varint();
    const eventId = reader.id();
    if (i < start) continue;
    entities[i - start] = entity;
    timesMs[i - start] = timeMs;
    eventIds[i - start] = eventId;
  }
}
