/** Brings the tables up to date, one numbered SQL file after the other, and refuses what it does not know. */
import { createHash } from 'node:crypto';
import { readdir, readFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import { PipelineError } from '../../schemas/errors.ts';
import type { ClickHouse } from './clickhouse.ts';
import { splitStatements } from './engine/sql-tokens.ts';

export interface Migration {
  readonly version: number;
  readonly name: string;
  readonly sql: string;
  /** SHA-256 of the file, 64 hexadecimal digits. */
  readonly checksum: string;
}

const FOLDER = new URL('./migrations/', import.meta.url);

/** The migrations of this version of the code, by number: `001-tables.sql` is number 1. */
export async function readMigrations(folder: URL = FOLDER): Promise<Migration[]> {
  const names = (await readdir(folder)).filter((name) => /^\d{3}-.+\.sql$/.test(name)).sort();
  return Promise.all(
    names.map(async (name) => {
      const sql = (await readFile(fileURLToPath(new URL(name, folder)), 'utf8')).replaceAll('\r\n', '\n');
      return { version: Number(name.slice(0, 3)), name, sql, checksum: createHash('sha256').update(sql).digest('hex') };
    }),
  );
}

/**
 * Creates the database and applies what is missing. Statements are repeatable (`IF NOT EXISTS`), so that an interrupted
 * migration, or two processes at once, do no harm.
 *
 * @param bootstrap runs a statement outside the database
 * @throws PipelineError `CONFIG_INVALID` when the database is newer than the code, or a migration it has was changed
 */
export async function migrate(
  clickhouse: ClickHouse,
  bootstrap: (sql: string) => Promise<void>,
  migrations?: readonly Migration[],
): Promise<void> {
  const known = migrations ?? (await readMigrations());
  await bootstrap(`CREATE DATABASE IF NOT EXISTS \`${clickhouse.database}\``);
  await clickhouse.command(
    `CREATE TABLE IF NOT EXISTS schema_migrations (version UInt32, name String, checksum String, applied_at DateTime64(3, 'UTC') DEFAULT now64(3))
     ENGINE = ReplacingMergeTree ORDER BY version`,
  );
  const applied = await clickhouse.rows<{ version: number; name: string; checksum: string }>(
    'SELECT version, name, checksum FROM schema_migrations FINAL ORDER BY version',
  );
  const refuse = (problem: string) =>
    new PipelineError(
      'CONFIG_INVALID',
      `ClickHouse database '${clickhouse.database}' at ${clickhouse.where} ${problem}, or choose another clickhouse.database`,
    );
  const newest = known.at(-1)?.version ?? 0;
  for (const { version, name, checksum } of applied) {
    const own = known.find((migration) => migration.version === version);
    if (own === undefined) throw refuse(`has migration ${version} (${name}), this version knows ${newest}: upgrade hstu-streams`);
    if (own.checksum !== checksum) throw refuse(`was made by another text of migration ${own.name}: restore the file`);
  }
  const done = new Set(applied.map(({ version }) => version));
  for (const { version, name, sql, checksum } of known) {
    if (done.has(version)) continue;
    for (const statement of splitStatements(sql)) await clickhouse.command(statement);
    await clickhouse.insert('schema_migrations', ['version', 'name', 'checksum'], [JSON.stringify([version, name, checksum])]);
  }
}
