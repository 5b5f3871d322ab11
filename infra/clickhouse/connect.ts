/** Opens ClickHouse as the configuration says, server or embedded, with its tables brought up to date. */
import { type ClickHouseClient, ClickHouseLogLevel, createClient } from '@clickhouse/client';
import type { Config } from '../../schemas/config.ts';
import { messageOf, PipelineError } from '../../schemas/errors.ts';
import type { ClickHouse } from './clickhouse.ts';
import { type EngineLease, openEngine } from './engine/open-engine.ts';
import { migrate } from './migrate.ts';

export type ClickHouseConfig = Config['clickhouse'];

export interface ConnectOptions {
  /** Create the database and bring its tables up to date. @default true */
  readonly migrate?: boolean;
  /** Longest request, ms. @default 300,000 */
  readonly requestTimeoutMs?: number;
  /** Of an embedded engine that is started for this. @default no limit */
  readonly memoryBytes?: number;
}

/**
 * Connects; after `close()` an embedded engine ends by itself once no process uses it.
 *
 * An embedded engine that dies while we use it is started again by the next request.
 *
 * @throws PipelineError `STORE_UNAVAILABLE` when it cannot be reached or started; `CONFIG_INVALID` when its tables are of
 * a newer version or were changed
 */
export async function connect(config: ClickHouseConfig, options: ConnectOptions = {}): Promise<ClickHouse> {
  const { migrate: withMigrations = true, requestTimeoutMs = 300_000, memoryBytes } = options;
  const clickhouse =
    config.url === undefined
      ? await openEmbedded(config, requestTimeoutMs, memoryBytes)
      : openServer(config, config.url, requestTimeoutMs);
  try {
    if (withMigrations) await migrate(clickhouse, clickhouse.bootstrap);
    else await clickhouse.bootstrap('SELECT 1');
    return clickhouse;
  } catch (cause) {
    await clickhouse.close();
    if (cause instanceof PipelineError) throw cause;
    throw new PipelineError(
      'STORE_UNAVAILABLE',
      `ClickHouse at ${clickhouse.where}: ${messageOf(cause)}; check clickhouse.url, username and password`,
      {
        cause,
      },
    );
  }
}

/** Runs a statement without choosing the database, which may not exist yet. */
type Bootstrapped = ClickHouse & { readonly bootstrap: (sql: string) => Promise<void> };

interface Access {
  readonly url: string;
  readonly username: string | undefined;
  readonly password: string | undefined;
}

function openServer(config: ClickHouseConfig, url: string, requestTimeoutMs: number): Bootstrapped {
  const access = { url, username: config.username, password: config.password };
  const client = makeClient(access, config.database, requestTimeoutMs);
  return handle({
    database: config.database,
    where: withoutPassword(url),
    enginePid: () => undefined,
    access: () => access,
    client: () => Promise.resolve(client),
    close: () => client.close(),
  });
}

async function openEmbedded(
  config: ClickHouseConfig,
  requestTimeoutMs: number,
  memoryBytes: number | undefined,
): Promise<Bootstrapped> {
  const open = () => openEngine(config.path, memoryBytes === undefined ? {} : { memoryBytes });
  const clientOf = (lease: EngineLease) => makeClient(lease, config.database, requestTimeoutMs);
  let lease = await open();
  let client = clientOf(lease);
  let reopening: Promise<void> | undefined;
  let closed = false;
  const reopen = async () => {
    await client.close();
    lease = await open();
    client = clientOf(lease);
  };
  return handle({
    database: config.database,
    where: `'${config.path}'`,
    enginePid: () => lease.pid,
    access: () => lease,
    client: async () => {
      if (lease.lost && !closed) {
        reopening ??= reopen().finally(() => {
          reopening = undefined;
        });
        await reopening;
      }
      return client;
    },
    close: async () => {
      closed = true;
      await reopening;
      await client.close();
      lease.release();
    },
  });
}

interface HandleParts {
  readonly database: string;
  readonly where: string;
  readonly enginePid: () => number | undefined;
  readonly access: () => Access;
  readonly client: () => Promise<ClickHouseClient>;
  readonly close: () => Promise<void>;
}

function handle({ database, where, enginePid, access, client, close }: HandleParts): Bootstrapped {
  return {
    database,
    where,
    get enginePid() {
      return enginePid();
    },
    async rows<T>(sql: string, params: Readonly<Record<string, unknown>> = {}) {
      const result = await (await client()).query({
        query: sql,
        query_params: params,
        format: 'JSONEachRow',
        clickhouse_settings: PLAIN_INTEGERS,
      });
      return result.json<T>();
    },
    async command(sql, params = {}) {
      await (await client()).command({ query: sql, query_params: params });
    },
    async bytes(sql) {
      const { stream } = await (await client()).exec({ query: sql });
      const chunks: Buffer[] = [];
      for await (const chunk of stream as AsyncIterable<Buffer>) chunks.push(chunk);
      return Buffer.concat(chunks);
    },
    async bootstrap(sql) {
      const outside = makeClient(access(), 'default', 60_000);
      await outside.command({ query: sql }).finally(() => outside.close());
    },
    async insert(table, columns, jsonRows) {
      if (jsonRows.length === 0) return;
      const query = `INSERT INTO ${table} (${columns.join(', ')}) FORMAT JSONCompactEachRow\n${jsonRows.join('\n')}\n`;
      await (await client()).command({ query });
    },
    close,
  };
}

/** Sent with each request and written into its query by our engine, so that nothing sticks. */
const PLAIN_INTEGERS = { output_format_json_quote_64bit_integers: 0 } as const;

const makeClient = ({ url, username, password }: Access, database: string, requestTimeoutMs: number): ClickHouseClient =>
  createClient({
    url,
    database,
    application: 'hstu-streams',
    request_timeout: requestTimeoutMs,
    max_open_connections: 16,
    use_multipart_params_auto: true,
    log: { level: ClickHouseLogLevel.OFF },
    ...(username === undefined ? {} : { username }),
    ...(password === undefined ? {} : { password }),
  });

function withoutPassword(url: string): string {
  const shown = new URL(url);
  if (shown.password !== '') shown.password = '***';
  return shown.href;
}
