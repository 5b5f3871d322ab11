/**
 * The process that holds the embedded engine: ClickHouse on one folder behind an HTTP front on 127.0.0.1.
 *
 * It lives for as long as some process holds a lease (an open request), whoever started it, and then closes the engine
 * and ends. Signals of the terminal do not end it: its users drain first.
 */
import { randomBytes } from 'node:crypto';
import type { AddressInfo } from 'node:net';
import { Session } from 'chdb';
import { removeAddress, writeAddress } from './engine-file.ts';
import type { EngineQuery } from './engine-query.ts';
import { createHttpFront, type EngineAnswer } from './http-front.ts';

/** To the starter, once. */
export type EngineMessage = { readonly ready: true } | { readonly ready: false; readonly problem: string };

/** Without any lease for this long after the start: the starter died. */
const FIRST_LEASE_MS = 10_000;
/** Between the last lease and the end: a command that follows at once finds the engine warm. */
const LINGER_MS = 500;

const tell = (message: EngineMessage) => {
  if (process.connected) process.send?.(message, () => undefined);
};

/** Parameters become part of a query's text here, unlike on a server: a list of many users must fit. */
const openSession = (folder: string, memoryBytes: string | undefined): Session =>
  new Session(folder, {
    connectionArgs: ['--max_query_size=268435456', ...(memoryBytes === undefined ? [] : [`--max_memory_usage=${memoryBytes}`])],
  });

function runner(session: Session): (query: EngineQuery) => Promise<EngineAnswer> {
  let current = 'default';
  return async ({ sql, format, database }) => {
    if (database !== current) {
      await session.queryAsync(`USE \`${database.replace(/[\\`]/g, '\\$&')}\``);
      current = database;
    }
    const result = await session.queryAsync(sql, { format });
    return { bytes: result.bytes(), rowsRead: result.rowsRead, bytesRead: result.bytesRead };
  };
}

async function serve(folder: string, memoryBytes: string | undefined): Promise<void> {
  const session = openSession(folder, memoryBytes);
  const secret = randomBytes(24).toString('base64url');
  let timer: NodeJS.Timeout | undefined;
  let held = 0;
  const endAfter = (delayMs: number) => {
    clearTimeout(timer);
    timer = setTimeout(() => void end(), delayMs);
  };
  const front = createHttpFront({
    secret,
    run: runner(session),
    onLeases: (count) => {
      held = count;
      if (count > 0) clearTimeout(timer);
      else endAfter(LINGER_MS);
    },
  });
  const end = async () => {
    // From here on new clients are refused, and wait for this process to be gone.
    front.close();
    front.closeAllConnections();
    session.close();
    await removeAddress(folder);
    process.exit(0);
  };
  process.on('SIGINT', () => undefined);
  process.on('SIGHUP', () => undefined);
  process.on('SIGTERM', () => {
    if (held === 0) void end();
  });
  await new Promise<void>((resolve, reject) => front.once('error', reject).listen(0, '127.0.0.1', resolve));
  await writeAddress(folder, {
    pid: process.pid,
    port: (front.address() as AddressInfo).port,
    secret,
    startedAt: new Date().toISOString(),
  });
  endAfter(FIRST_LEASE_MS);
  tell({ ready: true });
}

const [folder, memoryBytes] = process.argv.slice(2);
if (folder === undefined) throw new Error('the folder is missing');
serve(folder, memoryBytes).catch((error: unknown) => {
  tell({ ready: false, problem: error instanceof Error ? error.message : String(error) });
  process.exitCode = 1;
  // Nothing may keep a failed start alive.
  setTimeout(() => process.exit(1), 200);
});
