/** What lies in an engine's folder beside ClickHouse's own files: whose folder it is, and who serves it now. */
import { constants } from 'node:fs';
import { access, mkdir, open, readdir, readFile, rename, rm, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { messageOf, PipelineError } from '../../../schemas/errors.ts';
import { isAlive } from '../../files/is-alive.ts';

/** How to reach the process that serves a folder. */
export interface EngineAddress {
  readonly pid: number;
  readonly port: number;
  readonly secret: string;
  /** ISO time. */
  readonly startedAt: string;
}

const OWNER_FILE = '.hstu-store.json';
const ADDRESS_FILE = '.engine.json';
const LOCK_FILE = '.engine.lock';
export const LOG_FILE = '.engine.log';

/** A starter that has not finished by then died, or its pid belongs to another process now. */
const LOCK_MAX_AGE_MS = 60_000;

/**
 * Makes sure that the folder exists, is writable, and is ours: one that we made, or an empty one.
 *
 * @throws PipelineError `STORE_UNAVAILABLE` naming the folder and the cure
 */
export async function prepareFolder(folder: string): Promise<void> {
  try {
    await mkdir(folder, { recursive: true, mode: 0o700 });
    const entries = await readdir(folder);
    if (!entries.includes(OWNER_FILE)) {
      if (entries.length > 0)
        throw unavailable(
          folder,
          'the folder holds files that are not ours',
          'choose another clickhouse.path, or an empty folder',
        );
      await writeFile(join(folder, OWNER_FILE), `${JSON.stringify({ format: 'hstu-clickhouse/1' })}\n`);
    }
    await access(folder, constants.W_OK | constants.R_OK);
  } catch (cause) {
    if (cause instanceof PipelineError) throw cause;
    throw unavailable(
      folder,
      `the folder cannot be used (${messageOf(cause)})`,
      'choose a writable clickhouse.path, or set clickhouse.url to a server',
      cause,
    );
  }
}

export const unavailable = (folder: string, problem: string, cure: string, cause?: unknown): PipelineError =>
  new PipelineError('STORE_UNAVAILABLE', `embedded ClickHouse in '${folder}': ${problem}; ${cure}`, { cause });

/** Undefined when there is none, or none that can be read. */
export async function readAddress(folder: string): Promise<EngineAddress | undefined> {
  try {
    const parsed = JSON.parse(await readFile(join(folder, ADDRESS_FILE), 'utf8')) as Partial<EngineAddress> | null;
    const { pid, port, secret, startedAt } = parsed ?? {};
    if (typeof pid !== 'number' || typeof port !== 'number' || typeof secret !== 'string' || typeof startedAt !== 'string')
      return undefined;
    return { pid, port, secret, startedAt };
  } catch {
    return undefined;
  }
}

/** Whole or not at all, and readable by its owner only. */
export async function writeAddress(folder: string, address: EngineAddress): Promise<void> {
  const draft = join(folder, `${ADDRESS_FILE}.${address.pid}`);
  await writeFile(draft, `${JSON.stringify(address)}\n`, { mode: 0o600 });
  await rename(draft, join(folder, ADDRESS_FILE));
}

export const removeAddress = (folder: string): Promise<void> => rm(join(folder, ADDRESS_FILE), { force: true });

/**
 * Takes the right to start an engine on this folder; undefined while another process has it.
 *
 * @returns how to give it back
 */
export async function tryLock(folder: string): Promise<(() => Promise<void>) | undefined> {
  const path = join(folder, LOCK_FILE);
  try {
    const file = await open(path, 'wx', 0o600);
    await file.writeFile(String(process.pid));
    await file.close();
    return () => rm(path, { force: true });
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code !== 'EEXIST')
      throw unavailable(folder, `its lock cannot be written (${messageOf(cause)})`, 'make the folder writable', cause);
    await removeStaleLock(path);
    return undefined;
  }
}

async function removeStaleLock(path: string): Promise<void> {
  try {
    const { mtimeMs, ino } = await stat(path);
    const pid = Number(await readFile(path, 'utf8'));
    const age = Date.now() - mtimeMs;
    // An empty file is one that is just being written.
    if (age < LOCK_MAX_AGE_MS && (pid === 0 ? age < 1_000 : isAlive(pid))) return;
    // Taken aside first: if someone else replaced it meanwhile, theirs is put back by its inode.
    const aside = `${path}.${process.pid}`;
    await rename(path, aside);
    if ((await stat(aside)).ino !== ino) await rename(aside, path);
    else await rm(aside, { force: true });
  } catch {
    // Gone meanwhile: the next attempt will see.
  }
}
