/** One process at a time: two `up` on one folder, or test workers that want the same broker. */
import { mkdir, open, readFile, rename, rm, stat } from 'node:fs/promises';
import { dirname } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { PipelineError } from '../../../schemas/errors.ts';
import { isAlive } from '../../files/is-alive.ts';

const POLL_MS = 100;
/** An empty lock older than this belongs to a process that died before it wrote its id. */
const UNWRITTEN_MS = 2_000;

/**
 * Runs `work` while this process holds the file; one left by a process that died is taken over.
 *
 * @param waitMs how long to wait for another process
 * @throws PipelineError `KAFKA_UNAVAILABLE` when another process still has it then; whatever `work` throws
 */
export async function withLock<T>(file: string, waitMs: number, work: () => Promise<T>): Promise<T> {
  await mkdir(dirname(file), { recursive: true, mode: 0o700 });
  const deadline = Date.now() + waitMs;
  while (!(await take(file))) {
    if (Date.now() > deadline)
      throw new PipelineError(
        'KAFKA_UNAVAILABLE',
        `another process has been starting or stopping Kafka for ${waitMs} ms; if there is none, remove ${file}`,
      );
    await sleep(POLL_MS);
  }
  try {
    return await work();
  } finally {
    await rm(file, { force: true });
  }
}

async function take(file: string): Promise<boolean> {
  try {
    const handle = await open(file, 'wx');
    await handle.writeFile(String(process.pid));
    await handle.close();
    return true;
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code !== 'EEXIST') throw cause;
    await removeStale(file);
    return false;
  }
}

async function removeStale(file: string): Promise<void> {
  try {
    const { ino, mtimeMs } = await stat(file);
    const owner = Number(await readFile(file, 'utf8'));
    if (owner === 0 ? Date.now() - mtimeMs < UNWRITTEN_MS : isAlive(owner)) return;
    // Taken aside first: where another process was quicker and holds it now, it is put back.
    const aside = `${file}.${process.pid}`;
    await rename(file, aside);
    if ((await stat(aside)).ino === ino) await rm(aside, { force: true });
    else await rename(aside, file);
  } catch {
    // Gone meanwhile: the next attempt will see.
  }
}
