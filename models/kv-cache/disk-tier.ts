/**
 * Rows of users that memory has no room for, in a file: read back instead of encoded anew. The file is a ring: the newest record takes
 * the place of the oldest. It has no name, so that nothing of anybody is left after the process.
 */
import { randomUUID } from 'node:crypto';
import { closeSync, ftruncateSync, mkdirSync, openSync, readSync, unlinkSync, writev } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { crc32 } from 'node:zlib';
import type { DiskTierStats } from '../../schemas/encoding.ts';
import { messageOf } from '../../schemas/errors.ts';
import type { CachedRows } from './cached-rows.ts';
import { packedBytes, packRecord, unpackRecord } from './disk-record.ts';

export interface DiskTierOptions {
  /** Where the file is made. */
  readonly folder: string;
  /** Its size, bytes. */
  readonly budgetBytes: number;
  /** Records that are not written yet, bytes at most; beyond that a user is not kept. @default 64 MiB */
  readonly maxQueuedBytes?: number | undefined;
  /** Told once, when the disk fails: nothing is kept from then on, and users are encoded anew. */
  readonly onFailure?: ((message: string) => void) | undefined;
}

/** A user's rows as they were given, and what they were computed from. */
export interface DiskCopy extends CachedRows {
  readonly rows: Uint8Array;
}

interface Placed extends Pick<CachedRows, 'modelDigest' | 'windowStart' | 'length' | 'nextTimeS'> {
  readonly offset: number;
  readonly bytes: number;
  readonly checksum: number;
  /** Until it is written. */
  data: Uint8Array | undefined;
}

const writeAt = promisify(writev);
/** Records written at once: the system takes 1,024. */
const MAX_WRITE = 512;
const MAX_SPARE_BYTES = 2 ** 24;

/** Bytes for a place of the file. */
interface Queued {
  readonly offset: number;
  readonly data: Uint8Array;
  /** The record that they are; none where they overwrite one. */
  readonly of?: Placed;
}

export class DiskTier {
  readonly #options: DiskTierOptions;
  /** In the order of the ring, the oldest first. */
  readonly #placed = new Map<string, Placed>();
  /** Opened with the first record. */
  #file: number | undefined;
  /** Where the next record goes. */
  #head = 0;
  #bytes = 0;
  readonly #queue: Queued[] = [];
  #queuedBytes = 0;
  #writing: Promise<void> | undefined;
  /** Memory of records that were written: for a new array of a megabyte the system takes longer than for copying it. */
  readonly #spare: ArrayBufferLike[] = [];
  #spareBytes = 0;
  #over = false;
  /** What was read last. */
  #read = new Uint8Array(0);
  #zeros = new Uint8Array(0);
  readonly #counts = { spills: 0, restores: 0, skipped: 0, corrupt: 0 };

  constructor(options: DiskTierOptions) {
    this.#options = options;
  }

  get stats(): DiskTierStats {
    return { users: this.#placed.size, bytesUsed: this.#bytes, bytesBudget: this.#options.budgetBytes, ...this.#counts };
  }

  /** Whether there is a copy of just these rows. By what changes with every append; whether the tokens are the same is found out on use. */
  has(userId: string, held: CachedRows): boolean {
    const placed = this.#placed.get(userId);
    if (placed === undefined || placed.modelDigest !== held.modelDigest || placed.windowStart !== held.windowStart) return false;
    return placed.length === held.length && Object.is(placed.nextTimeS, held.nextTimeS);
  }

  /** Keeps a copy of a user's rows, written when the thread is idle next; a copy of the same rows stays. Nothing waits for the disk. */
  put(userId: string, held: CachedRows, rows: readonly ArrayBufferView[]): void {
    if (this.#over || held.length === 0 || this.has(userId, held)) return;
    this.#forget(userId);
    const bytes = packedBytes(held, rows);
    if (bytes > this.#options.budgetBytes || this.#queuedBytes + bytes > (this.#options.maxQueuedBytes ?? 2 ** 26)) {
      this.#counts.skipped += 1;
      return;
    }
    const data = this.#buffer(bytes);
    packRecord(held, rows, data);
    const { modelDigest, windowStart, length, nextTimeS } = held;
    const place = { offset: this.#room(bytes), bytes, checksum: crc32(data), data };
    const placed: Placed = { modelDigest, windowStart, length, nextTimeS, ...place };
    this.#placed.set(userId, placed);
    this.#bytes += bytes;
    this.#counts.spills += 1;
    this.#enqueue({ offset: placed.offset, data, of: placed });
  }

  /** A user's copy, which stays; undefined where there is none, or it is not what was written. Good until the next `get`. */
  get(userId: string): DiskCopy | undefined {
    const placed = this.#placed.get(userId);
    if (placed === undefined) return undefined;
    const data = placed.data ?? this.#readBack(placed);
    if (data === undefined) {
      this.#counts.corrupt += 1;
      this.#forget(userId);
      return undefined;
    }
    this.#counts.restores += 1;
    return { ...placed, ...unpackRecord(data, placed.length) };
  }

  /** Drops a user's copy, and has its bytes overwritten. Returns whether there was one. */
  drop(userId: string): boolean {
    const placed = this.#forget(userId);
    if (placed === undefined) return false;
    // One array for all: whole topics of users may be dropped at once.
    if (this.#zeros.byteLength < placed.bytes) this.#zeros = new Uint8Array(placed.bytes);
    this.#enqueue({ offset: placed.offset, data: this.#zeros.subarray(0, placed.bytes) });
    return true;
  }

  /** All that was put is on the disk. */
  async written(): Promise<void> {
    await this.#writing;
  }

  async close(): Promise<void> {
    this.#end();
    await this.#writing;
    if (this.#file !== undefined) closeSync(this.#file);
    this.#file = undefined;
  }

  #buffer(bytes: number): Uint8Array {
    const fitting = this.#spare.findIndex(({ byteLength }) => byteLength >= bytes);
    // Where all are smaller, one makes room for one that serves more records.
    const [spare] = this.#spare.splice(Math.max(0, fitting), 1);
    this.#spareBytes -= spare?.byteLength ?? 0;
    return new Uint8Array(fitting >= 0 ? spare! : new ArrayBuffer(2 ** Math.ceil(Math.log2(bytes))), 0, bytes);
  }

  #forget(userId: string): Placed | undefined {
    const placed = this.#placed.get(userId);
    if (placed === undefined) return undefined;
    this.#placed.delete(userId);
    this.#bytes -= placed.bytes;
    return placed;
  }

  /** Where so many bytes go: behind the newest record, or, where the ring ends, at its beginning. Whoever lies there goes. */
  #room(bytes: number): number {
    const wraps = this.#head + bytes > this.#options.budgetBytes;
    const from = wraps ? 0 : this.#head;
    for (const [userId, { offset, bytes: length }] of this.#placed) {
      const left = wraps && offset >= this.#head;
      if (!left && (offset >= from + bytes || offset + length <= from)) break;
      this.#forget(userId);
    }
    this.#head = from + bytes;
    return from;
  }

  #enqueue(one: Queued): void {
    this.#queue.push(one);
    this.#queuedBytes += one.data.byteLength;
    this.#writing ??= this.#write();
  }

  /**
   * In the order of the queue: where two are of one place, the later one stays. All that lie together go at once, since a thread
   * that is busy looks here only once between two calls, each of which may have evicted many.
   */
  async #write(): Promise<void> {
    // What this turn evicts is written together.
    await Promise.resolve();
    while (this.#queue.length > 0) {
      let count = 1;
      let end = endOf(this.#queue[0]!);
      while (count < MAX_WRITE && this.#queue[count]?.offset === end) end = endOf(this.#queue[count++]!);
      const together = this.#queue.splice(0, count);
      try {
        await this.#writeAll(
          together.map(({ data }) => data),
          together[0]!.offset,
        );
      } catch (thrown) {
        // Empties the queue.
        this.#fail(thrown);
        break;
      }
      for (const { data, of } of together) {
        this.#queuedBytes -= data.byteLength;
        if (of === undefined) continue;
        of.data = undefined;
        if (this.#spareBytes + data.buffer.byteLength > MAX_SPARE_BYTES) continue;
        this.#spare.push(data.buffer);
        this.#spareBytes += data.buffer.byteLength;
      }
    }
    this.#writing = undefined;
  }

  async #writeAll(parts: readonly Uint8Array[], offset: number): Promise<void> {
    const file = this.#open();
    for (let left = parts, at = offset; left.length > 0; ) {
      let { bytesWritten } = await writeAt(file, left, at);
      at += bytesWritten;
      // The system may take less than it was given.
      const rest: Uint8Array[] = [];
      for (const part of left) {
        if (bytesWritten < part.byteLength) rest.push(part.subarray(bytesWritten));
        bytesWritten = Math.max(0, bytesWritten - part.byteLength);
      }
      left = rest;
    }
  }

  #open(): number {
    if (this.#file !== undefined) return this.#file;
    const { folder } = this.#options;
    mkdirSync(folder, { recursive: true });
    const path = join(folder, `kv-${randomUUID()}`);
    this.#file = openSync(path, 'wx+', 0o600);
    unlinkSync(path);
    return this.#file;
  }

  #readBack({ offset, bytes, checksum }: Placed): Uint8Array | undefined {
    if (this.#read.byteLength < bytes) this.#read = new Uint8Array(bytes);
    const data = this.#read.subarray(0, bytes);
    try {
      for (let done = 0; done < bytes; ) {
        const read = readSync(this.#file!, data, done, bytes - done, offset + done);
        if (read === 0) return undefined;
        done += read;
      }
    } catch (thrown) {
      this.#fail(thrown);
      return undefined;
    }
    return crc32(data) === checksum ? data : undefined;
  }

  #fail(thrown: unknown): void {
    if (this.#over) return;
    this.#end();
    try {
      // Where the disk is full, others need the room.
      if (this.#file !== undefined) ftruncateSync(this.#file);
    } catch {
      // It goes with the process.
    }
    this.#options.onFailure?.(
      `the KV cache on disk, ${this.#options.folder}: ${messageOf(thrown)}; it is used no more, users that memory has no room for are encoded anew`,
    );
  }

  #end(): void {
    this.#over = true;
    this.#placed.clear();
    this.#bytes = 0;
    this.#queue.length = 0;
    this.#queuedBytes = 0;
    this.#spare.length = 0;
    this.#spareBytes = 0;
  }
}

const endOf = ({ offset, data }: Queued): number => offset + data.byteLength;
