/** The process of one broker: started so that it outlives the terminal, found again by its pid file, ended within a bound. */
import { execFileSync, spawn } from 'node:child_process';
import { closeSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { isAlive } from '../../files/is-alive.ts';

const POLL_MS = 50;

export interface BrokerFiles {
  /** Its own properties: their path in a process's arguments tells our broker from a stranger with the same id. */
  readonly properties: string;
  readonly pid: string;
  readonly log: string;
}

export interface RunningBroker {
  readonly pid: number;
  /** ms since the epoch */
  readonly startedAtMs: number;
}

/** Starts a Java program that nobody waits for; its output is appended to the log. */
export function startBroker(files: BrokerFiles, args: readonly string[]): RunningBroker {
  const log = openSync(files.log, 'a');
  try {
    // A session of its own: neither Ctrl-C nor the end of the terminal reaches it.
    const child = spawn('java', args, { detached: true, stdio: ['ignore', log, log] });
    child.on('error', () => undefined);
    child.unref();
    // Without a pid it did not start: whoever waits for it to be ready sees that nothing runs.
    const running = { pid: child.pid ?? 0, startedAtMs: Date.now() };
    writeFileSync(files.pid, `${JSON.stringify(running)}\n`);
    return running;
  } finally {
    closeSync(log);
  }
}

/** Undefined when it does not run; a pid file that was left behind is then removed. */
export function findBroker(files: BrokerFiles): RunningBroker | undefined {
  let running: RunningBroker;
  try {
    running = JSON.parse(readFileSync(files.pid, 'utf8')) as RunningBroker;
  } catch {
    return undefined;
  }
  if (running.pid > 0 && isAlive(running.pid) && argumentsOf(running.pid)?.includes(files.properties) !== false) return running;
  rmSync(files.pid, { force: true });
  return undefined;
}

/**
 * SIGTERM, and SIGKILL for what is left after `graceMs`; with 0, SIGKILL at once.
 *
 * @returns whether it had to be killed
 */
export async function endBroker(files: BrokerFiles, graceMs: number): Promise<boolean> {
  if (graceMs > 0 && signal(files, 'SIGTERM') && (await isGone(files, graceMs))) return false;
  const killed = signal(files, 'SIGKILL');
  await isGone(files, 5_000);
  return killed;
}

async function isGone(files: BrokerFiles, withinMs: number): Promise<boolean> {
  const deadline = Date.now() + withinMs;
  while (findBroker(files) !== undefined) {
    if (Date.now() > deadline) return false;
    await sleep(POLL_MS);
  }
  return true;
}

function signal(files: BrokerFiles, name: NodeJS.Signals): boolean {
  const running = findBroker(files);
  if (running === undefined) return false;
  try {
    process.kill(running.pid, name);
    return true;
  } catch {
    // It ended in between.
    return false;
  }
}

/** The arguments of a process, or undefined where the system does not say. A dead one that nobody has reaped has none. */
function argumentsOf(pid: number): string | undefined {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'utf8');
  } catch {
    // Not Linux.
  }
  try {
    return execFileSync('ps', ['-o', 'args=', '-ww', '-p', String(pid)], {
      encoding: 'utf8',
      stdio: ['ignore', 'pipe', 'ignore'],
    });
  } catch {
    return undefined;
  }
}
