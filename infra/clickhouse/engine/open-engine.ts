/** Reaches the engine of a folder: the one that runs, else a new one. */
import { spawn } from 'node:child_process';
import { closeSync, openSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { request } from 'node:http';
import { createRequire } from 'node:module';
import { join, resolve } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { isAlive } from '../../files/is-alive.ts';
import { type EngineAddress, LOG_FILE, prepareFolder, readAddress, removeAddress, tryLock, unavailable } from './engine-file.ts';
import type { EngineMessage } from './engine-main.ts';
import { LEASE_PATH } from './http-front.ts';

/** A hold on an engine: it lives at least until this is released, or this process dies. */
export interface EngineLease {
  readonly url: string;
  readonly username: string;
  readonly password: string;
  readonly pid: number;
  /** Whether the engine is gone though this lease was not released. */
  readonly lost: boolean;
  readonly release: () => void;
}

export interface OpenEngineOptions {
  /** Give up after this long, ms. @default 60,000 */
  readonly timeoutMs?: number;
  /** What a query of it may hold, bytes; beyond that and `ADDRESS_BYTES` the process gets none. Counts for who starts it. @default no limit */
  readonly memoryBytes?: number;
}

/** An engine that refuses, but whose process lives, is closing its files: wait this long before calling its address stale. */
const CLOSING_MS = 5_000;
const POLL_MS = 50;
/**
 * Address space of an engine without any data: Node's heap and ClickHouse's library, 2.3 GiB seen, and room for its threads. Run from
 * source, WebAssembly reserves addresses as well.
 */
const ADDRESS_BYTES = { compiled: 3 * 2 ** 30, source: 32 * 2 ** 30 };

/**
 * Leases the engine on `folder`, starting it when none is running. Of several processes that do this at once, one starts
 * the engine and the others lease the same.
 *
 * @throws PipelineError `STORE_UNAVAILABLE` naming the folder, what is wrong and the cure
 */
export async function openEngine(
  folder: string,
  { timeoutMs = 60_000, memoryBytes }: OpenEngineOptions = {},
): Promise<EngineLease> {
  const path = resolve(folder);
  await prepareFolder(path);
  const deadline = Date.now() + timeoutMs;
  let refusedSince: number | undefined;
  while (Date.now() < deadline) {
    const address = await readAddress(path);
    if (address !== undefined) {
      const lease = await takeLease(address);
      if (lease !== undefined) return lease;
      refusedSince ??= Date.now();
      if (isAlive(address.pid) && Date.now() - refusedSince < CLOSING_MS) {
        await sleep(POLL_MS);
        continue;
      }
    }
    const unlock = await tryLock(path);
    if (unlock === undefined) {
      await sleep(POLL_MS);
      continue;
    }
    try {
      const now = await readAddress(path);
      // Another process may have replaced it while we were getting here.
      if (now?.startedAt !== address?.startedAt || now?.pid !== address?.pid) continue;
      await removeAddress(path);
      await startEngine(path, Math.max(1_000, deadline - Date.now()), memoryBytes);
      refusedSince = undefined;
    } finally {
      await unlock();
    }
  }
  throw unavailable(
    path,
    `no engine answered within ${timeoutMs} ms`,
    `end the process that holds it, or remove '${join(path, '.engine.lock')}' if there is none`,
  );
}

/** Undefined when nobody answers there, or somebody else does. */
function takeLease({ pid, port, secret }: EngineAddress): Promise<EngineLease | undefined> {
  return new Promise((settle) => {
    let state: 'held' | 'lost' | 'released' = 'held';
    const lease = request({
      host: '127.0.0.1',
      port,
      path: LEASE_PATH,
      agent: false,
      timeout: 5_000,
      headers: { 'x-clickhouse-user': 'hstu', 'x-clickhouse-key': secret },
    });
    lease.on('timeout', () => lease.destroy());
    lease.on('error', () => settle(undefined));
    lease.on('response', (response) => {
      response.on('error', () => undefined);
      if (response.statusCode !== 200) {
        response.resume();
        return settle(undefined);
      }
      response.once('data', () => {
        // A lease alone does not keep its process running.
        lease.setTimeout(0);
        response.socket.unref();
        response.resume();
        settle({
          url: `http://127.0.0.1:${port}`,
          username: 'hstu',
          password: secret,
          pid,
          get lost() {
            return state === 'lost';
          },
          release: () => {
            state = 'released';
            response.destroy();
          },
        });
      });
      response.on('close', () => {
        if (state === 'held') state = 'lost';
        settle(undefined);
      });
    });
    lease.end();
  });
}

/** A limit on the address space holds whatever the engine does not count itself; where the shell cannot set it, its own limit is left. */
function limited(
  command: readonly string[],
  memoryBytes: number | undefined,
  ownBytes: number,
): [command: string, args: string[]] {
  if (memoryBytes === undefined || process.platform === 'win32') return [command[0]!, command.slice(1)];
  const kibibytes = String(Math.ceil((memoryBytes + ownBytes) / 1024));
  return ['/bin/sh', ['-c', 'ulimit -v "$0" 2>/dev/null; exec "$@"', kibibytes, ...command, String(memoryBytes)]];
}

/** Starts the engine's process and waits until it serves. It is nobody's child afterwards: leases keep it alive. */
async function startEngine(folder: string, timeoutMs: number, memoryBytes: number | undefined): Promise<void> {
  const fromSource = import.meta.url.endsWith('.ts');
  const main = fileURLToPath(new URL(fromSource ? './engine-main.ts' : './engine-main.js', import.meta.url));
  // Node 20 reads TypeScript through tsx only.
  const execArgv = fromSource ? ['--import', `file://${createRequire(import.meta.url).resolve('tsx')}`] : [];
  const logPath = join(folder, LOG_FILE);
  const log = openSync(logPath, 'w', 0o600);
  // Its own process group: a Ctrl-C is for its users. Its output goes to a file, since it may outlive the starter.
  const [command, args] = limited(
    [process.execPath, ...execArgv, main, folder],
    memoryBytes,
    ADDRESS_BYTES[fromSource ? 'source' : 'compiled'],
  );
  const child = spawn(command, args, { detached: true, stdio: ['ignore', log, log, 'ipc'] });
  closeSync(log);
  const outcome = await new Promise<EngineMessage>((settle) => {
    const timer = setTimeout(() => settle({ ready: false, problem: `it did not start within ${timeoutMs} ms` }), timeoutMs);
    const done = (message: EngineMessage) => {
      clearTimeout(timer);
      settle(message);
    };
    child.once('message', (message) => done(message as EngineMessage));
    child.once('error', (error) => done({ ready: false, problem: error.message }));
    child.once('exit', (code, signal) => done({ ready: false, problem: `its process ended with ${signal ?? `code ${code}`}` }));
  });
  if (outcome.ready) {
    child.disconnect();
    child.unref();
    return;
  }
  child.kill('SIGKILL');
  const output = (await readFile(logPath, 'utf8').catch(() => '')).trim().slice(-2_000);
  throw unavailable(
    folder,
    `the engine does not start (${outcome.problem}${output === '' ? '' : `; its output: ${output}`})`,
    'end any other process that uses the folder, choose another clickhouse.path, or set clickhouse.url to a server',
  );
}
