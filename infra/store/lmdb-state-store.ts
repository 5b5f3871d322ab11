/** The records of one partition on this machine's disk: what a restart reads instead of the whole changelog. */
import { createHash } from 'node:crypto';
import { closeSync, existsSync, fsyncSync, openSync, rmSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { open, type RootDatabase } from 'lmdb';
import { messageOf, PipelineError } from '../../schemas/errors.ts';
import type { StateChange, StateReader } from '../../schemas/state.ts';
import { makePrivateFolder } from '../files/private-folder.ts';
import { checkDataFile } from './check-data-file.ts';
import { type OwnedFolder, takeFolder } from './folder-owner.ts';

export interface StateStoreOptions {
  /** Folder of this partition's state alone; made if it is missing. */
  readonly path: string;
  /** Address space for the data file to begin with, bytes (not memory); it grows when the file does. @default 4 GiB */
  readonly mapSizeBytes?: number;
}

/** Stands for what the records are: JSON, written in one transaction with them. */
export interface StateStoreMeta {
  /** Changelog records before this one are in the store. */
  readonly changelogOffset: number;
  readonly [key: string]: unknown;
}

export interface OpenedStateStore {
  readonly store: LmdbStateStore;
  /** Why what the folder held was discarded; undefined if it was read, or there was none. */
  readonly rebuilt: string | undefined;
}

const DEFAULT_MAP_BYTES = 4 * 1024 ** 3;
const DATA_FILE = 'data.mdb';
const LOCK_FILE = 'lock.mdb';
/** Keys of records begin with smaller bytes. */
const META_KEY = Buffer.from('\u00ffmeta', 'latin1');
/** LMDB's own names of damage: MDB_PAGE_NOTFOUND, MDB_CORRUPTED, MDB_PANIC, MDB_VERSION_MISMATCH, MDB_INVALID, MDB_BAD_TXN, MDB_BAD_VALSIZE, MDB_PROBLEM. */
const DAMAGE_CODES: ReadonlySet<unknown> = new Set([-30797, -30796, -30795, -30794, -30793, -30782, -30781, -30779]);

/**
 * Opens the state of a partition, or an empty one where the folder's cannot be trusted: a damaged file, or a machine that
 * stopped while the store was open. An empty store has no `meta`: restore it from the changelog.
 *
 * A process that was killed leaves the last write. (Nothing is forced to the disk but at `close`, so that a write costs no
 * wait for it: the changelog is the durable copy, and the system keeps the pages of a dead process.)
 *
 * @throws PipelineError `STORE_UNAVAILABLE` for a folder that another process has, or that cannot be written
 */
export async function openStateStore({ path, mapSizeBytes = DEFAULT_MAP_BYTES }: StateStoreOptions): Promise<OpenedStateStore> {
  const unavailable = (cause: unknown) =>
    cause instanceof PipelineError
      ? cause
      : new PipelineError('STORE_UNAVAILABLE', `state folder ${path} cannot be used: ${messageOf(cause)}`, { cause });
  let owner: OwnedFolder | undefined;
  try {
    makePrivateFolder(path);
    owner = await takeFolder(path);
    let rebuilt = existsSync(join(path, DATA_FILE)) ? problemOf(path, owner) : undefined;
    if (rebuilt === undefined) {
      try {
        return { store: new LmdbStateStore(path, mapSizeBytes, owner), rebuilt };
      } catch (error) {
        if (!isDamage(error)) throw error;
        rebuilt = messageOf(error);
      }
    }
    removeFiles(path);
    return { store: new LmdbStateStore(path, mapSizeBytes, owner), rebuilt };
  } catch (error) {
    owner?.release();
    throw unavailable(error);
  }
}

function problemOf(path: string, { before }: OwnedFolder): string | undefined {
  if (before === 'machine-stopped') return 'the machine stopped, or may have, while the store was open';
  return checkDataFile(join(path, DATA_FILE));
}

function removeFiles(path: string): void {
  for (const name of [DATA_FILE, LOCK_FILE]) rmSync(join(path, name), { force: true });
}

const isDamage = (error: unknown): boolean =>
  error instanceof PipelineError ? error.code === 'STATE_CORRUPTED' : DAMAGE_CODES.has((error as { code?: unknown }).code);

/** Made by `openStateStore`. Every write is one transaction: all of it is read afterwards, or nothing. */
export class LmdbStateStore implements StateReader {
  readonly #path: string;
  readonly #mapSizeBytes: number;
  readonly #owner: OwnedFolder;
  #database: RootDatabase<Uint8Array, Uint8Array>;
  #meta: StateStoreMeta | undefined;

  /** @throws PipelineError `STATE_CORRUPTED` for records without a meta that can be read */
  constructor(path: string, mapSizeBytes: number, owner: OwnedFolder) {
    this.#path = path;
    this.#mapSizeBytes = mapSizeBytes;
    this.#owner = owner;
    this.#database = openDatabase(path, mapSizeBytes);
    try {
      const bytes = this.get(META_KEY);
      if (bytes !== undefined) this.#meta = decodeMeta(bytes);
      else if (this.count > 0) throw this.#corrupted('has records and no position');
    } catch (error) {
      void this.#database.close();
      throw error;
    }
  }

  /** Records there are, the meta aside. */
  get count(): number {
    const { entryCount } = this.#database.getStats() as { readonly entryCount: number };
    return entryCount - (this.#meta === undefined ? 0 : 1);
  }

  /** Records there will be after these changes. @throws PipelineError `STATE_CORRUPTED` where the file is damaged */
  countAfter(changes: readonly StateChange[]): number {
    const last = new Map(changes.map(({ key, value }) => [Buffer.from(key).toString('latin1'), { key, stays: value !== null }]));
    let count = this.count;
    try {
      for (const { key, stays } of last.values()) count += Number(stays) - Number(this.#database.doesExist(key));
    } catch (error) {
      throw this.#failed('cannot be read', error);
    }
    return count;
  }

  /** Size of the data file. */
  get bytes(): number {
    return statSync(join(this.#path, DATA_FILE)).size;
  }

  /** @throws PipelineError `STATE_CORRUPTED` where the file is damaged; the bytes of a value are for the reader to check */
  get(key: Uint8Array): Uint8Array | undefined {
    try {
      return this.#database.get(key);
    } catch (error) {
      throw this.#failed('cannot be read', error);
    }
  }

  /**
   * The records between two keys, both among them, in the order of bytes.
   *
   * @throws PipelineError `STATE_CORRUPTED` where the file is damaged
   */
  range(first: Uint8Array, last: Uint8Array): { readonly key: Uint8Array; readonly value: Uint8Array }[] {
    try {
      const end = Buffer.concat([last, Uint8Array.of(0)]);
      return [...this.#database.getRange({ start: first, end })].map(({ key, value }) => ({ key, value }));
    } catch (error) {
      throw this.#failed('cannot be read', error);
    }
  }

  /** As of the last write; undefined for an empty store. */
  meta(): StateStoreMeta | undefined {
    return this.#meta;
  }

  /**
   * Writes the changes, in their order, and the meta. Done when the call returns (the promise is settled), so writes are
   * ordered as they are called.
   *
   * @throws PipelineError `STORE_FAILED` if the disk is full: nothing of it is written; `STATE_CORRUPTED` for a damaged file
   */
  async write(changes: readonly StateChange[], meta: StateStoreMeta): Promise<void> {
    const database = this.#database;
    try {
      database.transactionSync(() => {
        for (const { key, value } of changes)
          if (value === null) database.removeSync(key);
          else database.putSync(key, value);
        database.putSync(META_KEY, encodeMeta(meta));
      });
    } catch (error) {
      throw this.#failed('cannot be written', error);
    }
    this.#meta = meta;
  }

  /** Removes all records and the meta, with their file: LMDB would read the pages to free them, and they may be damaged. */
  async clear(): Promise<void> {
    try {
      await this.#database.close();
      removeFiles(this.#path);
      makePrivateFolder(this.#path);
      this.#database = openDatabase(this.#path, this.#mapSizeBytes);
    } catch (error) {
      throw this.#failed('cannot be cleared', error);
    }
    this.#meta = undefined;
  }

  /** Forces everything to the disk and lets go of the folder. Of a folder that somebody has removed, nothing is left to force. */
  async close(): Promise<void> {
    try {
      await this.#database.close();
      const path = join(this.#path, DATA_FILE);
      if (existsSync(path)) forceToDisk(path);
    } finally {
      this.#owner.release();
    }
  }

  /** Closes, and removes the folder. */
  async drop(): Promise<void> {
    await this.#database.close();
    removeFiles(this.#path);
    this.#owner.release();
    rmSync(this.#path, { recursive: true, force: true });
  }

  #failed(what: string, cause: unknown): PipelineError {
    if (isDamage(cause)) return this.#corrupted(`${what}: ${messageOf(cause)}`, cause);
    return new PipelineError('STORE_FAILED', `state folder ${this.#path} ${what}: ${messageOf(cause)}`, { cause });
  }

  #corrupted(what: string, cause?: unknown): PipelineError {
    return new PipelineError('STATE_CORRUPTED', `state folder ${this.#path} ${what}`, { cause });
  }
}

function openDatabase(path: string, mapSize: number): RootDatabase<Uint8Array, Uint8Array> {
  // This process alone has the folder, so nobody else uses LMDB's lock; a damaged one would be in the way.
  rmSync(join(path, LOCK_FILE), { force: true });
  const database = open<Uint8Array, Uint8Array>({
    path,
    mapSize,
    encoding: 'binary',
    keyEncoding: 'binary',
    noMemInit: true,
    noSync: true,
    overlappingSync: false,
  });
  // Its files are made as the umask says.
  makePrivateFolder(path);
  return database;
}

function forceToDisk(path: string): void {
  const file = openSync(path, 'r+');
  try {
    fsyncSync(file);
  } finally {
    closeSync(file);
  }
}

const DIGEST_BYTES = 8;
const digestOf = (text: Uint8Array): Buffer => createHash('sha256').update(text).digest().subarray(0, DIGEST_BYTES);

function encodeMeta(meta: StateStoreMeta): Buffer {
  const text = Buffer.from(JSON.stringify(meta));
  return Buffer.concat([digestOf(text), text]);
}

function decodeMeta(bytes: Uint8Array): StateStoreMeta {
  const text = bytes.subarray(DIGEST_BYTES);
  if (!digestOf(text).equals(bytes.subarray(0, DIGEST_BYTES)))
    throw new PipelineError('STATE_CORRUPTED', 'the position in the state store is not as it was written');
  return JSON.parse(Buffer.from(text).toString('utf8')) as StateStoreMeta;
}
