/**
 * One process per folder. Two on the same files would each undo what the other wrote; and whoever comes after one that was
 * killed must know it, since what it wrote last may be in the machine's memory only.
 */
import { linkSync, readFileSync, readlinkSync, renameSync, rmSync, statSync, utimesSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { PipelineError } from '../../schemas/errors.ts';
import { isAlive } from '../files/is-alive.ts';

const OWNER_FILE = 'owner.json';
/** The owner touches its file this often. */
const HEARTBEAT_MS = 2_000;
/** An owner of whom no more can be known is gone when it was silent this long. */
const SILENT_MS = 10_000;
const POLL_MS = 250;

interface Owner {
  readonly pid: number;
  /** When the process started, in the kernel's count: another process may get the same pid. */
  readonly started: string;
  /** Pids of another container say nothing here. */
  readonly namespace: string;
  /** Differs after every start of the machine; empty where that cannot be known. */
  readonly boot: string;
}

export interface OwnedFolder {
  /**
   * How the owner before ended: it let go of the folder (or there was none), it was killed, or the machine may have stopped
   * under it, so that writes are lost in any order.
   */
  readonly before: 'released' | 'killed' | 'machine-stopped';
  release(): void;
}

/**
 * Takes the folder for this process. Waits, up to `SILENT_MS`, where only silence tells that the owner is gone.
 *
 * @throws PipelineError `STORE_UNAVAILABLE`, naming the pid, while another (or this) process has it
 */
export async function takeFolder(folder: string): Promise<OwnedFolder> {
  const path = join(folder, OWNER_FILE);
  const self = describeSelf();
  const draft = `${path}.${self.pid}.${self.started}`;
  let before: OwnedFolder['before'] = 'released';
  let heardMs: number | undefined;
  for (;;) {
    writeFileSync(draft, JSON.stringify(self));
    // A link is made whole or not at all, and never over another.
    const taken = attempt('EEXIST', () => linkSync(draft, path));
    rmSync(draft, { force: true });
    if (taken) break;
    const found = read(path);
    if (found === undefined) continue;
    const { text, heartbeatMs } = found;
    const owner = parse(text);
    const state = stateOf(owner, self, heartbeatMs);
    heardMs ??= heartbeatMs;
    if (state === 'alive' || (state === 'unknown' && heartbeatMs > heardMs)) throw held(folder, path, owner);
    if (state === 'unknown') {
      await sleep(POLL_MS);
      continue;
    }
    before = owner !== undefined && owner.boot !== '' && owner.boot === self.boot ? 'killed' : 'machine-stopped';
    removeStale(path, draft, text);
  }
  const heartbeat = setInterval(() => {
    // A folder that was removed under us, or can no longer be written, needs no heartbeat; the next write will say so.
    try {
      utimesSync(path, new Date(), new Date());
    } catch {
      clearInterval(heartbeat);
    }
  }, HEARTBEAT_MS).unref();
  return {
    before,
    release: () => {
      clearInterval(heartbeat);
      rmSync(path, { force: true });
    },
  };
}

function stateOf(owner: Owner | undefined, self: Owner, heartbeatMs: number): 'alive' | 'gone' | 'unknown' {
  if (owner === undefined) return 'gone';
  if (owner.boot === self.boot && owner.namespace === self.namespace)
    return isAlive(owner.pid) && startedOf(owner.pid) === owner.started ? 'alive' : 'gone';
  return Date.now() - heartbeatMs > SILENT_MS ? 'gone' : 'unknown';
}

/** Out of the way by a rename, so that of two who found the same only one goes on; put back if it was another by then. */
function removeStale(path: string, draft: string, text: string): void {
  const aside = `${draft}.stale`;
  if (!attempt('ENOENT', () => renameSync(path, aside))) return;
  if (readFileSync(aside, 'utf8') !== text) attempt('EEXIST', () => linkSync(aside, path));
  rmSync(aside, { force: true });
}

const held = (folder: string, path: string, owner: Owner | undefined): PipelineError =>
  new PipelineError(
    'STORE_UNAVAILABLE',
    `state folder ${folder} is in use by process ${owner?.pid}: end it, give this one another state.path, or remove ${path} if there is no such process`,
  );

function describeSelf(): Owner {
  const { pid } = process;
  return {
    pid,
    started: startedOf(pid),
    namespace: known(() => readlinkSync('/proc/self/ns/pid')),
    boot: known(() => readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim()),
  };
}

/** Field 22 of `/proc/<pid>/stat`; the name before may contain anything, so count from its closing bracket. */
const startedOf = (pid: number): string =>
  known(() => {
    const stat = readFileSync(`/proc/${pid}/stat`, 'latin1');
    return stat.slice(stat.lastIndexOf(')') + 2).split(' ')[19] ?? '';
  });

/** Empty on systems without `/proc`. */
function known(read: () => string): string {
  try {
    return read();
  } catch {
    return '';
  }
}

function read(path: string): { readonly text: string; readonly heartbeatMs: number } | undefined {
  try {
    return { text: readFileSync(path, 'utf8'), heartbeatMs: statSync(path).mtimeMs };
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw error;
  }
}

function parse(text: string): Owner | undefined {
  try {
    const { pid, started, namespace, boot } = JSON.parse(text) as Partial<Owner>;
    if (typeof pid !== 'number' || typeof started !== 'string') return undefined;
    return { pid, started, namespace: namespace ?? '', boot: boot ?? '' };
  } catch {
    return undefined;
  }
}

/** Whether it was done; false for the one failure that is expected. */
function attempt(expected: string, act: () => void): boolean {
  try {
    act();
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === expected) return false;
    throw error;
  }
}
