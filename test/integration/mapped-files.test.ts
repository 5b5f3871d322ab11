/** Files as people have them, at the command line: mixed kinds, lines of orders, rows that nobody can use. */
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { stringify } from 'yaml';
import { runCommand } from '../support/command-line.ts';
import { liveBundle } from '../support/live-bundle.ts';

describe('a backfill of files', { timeout: 60_000 }, () => {
  let folder: string;
  let bundle: string;
  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'hstu-mapped-'));
    bundle = (await liveBundle()).path;
  });
  afterAll(() => rm(folder, { recursive: true, force: true }));

  const configured = async (name: string, files: readonly object[]): Promise<string> => {
    const path = join(folder, `${name}.yaml`);
    const places = {
      clickhouse: { path: `${name}-ch` },
      state: { path: `${name}-state` },
      backfill: { to: 'jsonl', path: `${name}-runs` },
    };
    await writeFile(path, stringify({ bundle, source: { files }, ...places }));
    return path;
  };

  it('makes an action of each line of an order, ignores what it is told to, and says what it refused', async () => {
    const at = (minute: number) => new Date(Date.UTC(2024, 0, 1, 10, minute)).toISOString();
    const events = [
      { id: 'a', type: 'view', user: 1, item: 5, at: at(0) },
      { id: 'b', type: 'order', user: 1, lines: [{ item: 6, price: 'much' }, { item: 7, price: 2 }, { price: 1 }], at: at(1) },
      { id: 'c', type: 'search', user: 1, at: at(2) },
      { id: 'd', type: 'refund', user: 1, at: at(3) },
    ];
    await writeFile(join(folder, 'events.jsonl'), `${events.map((event) => JSON.stringify(event)).join('\n')}\n`);
    const mapping = [
      {
        when: { type: 'view' },
        eventId: '{id}',
        userId: 'u{user}',
        action: 'view',
        entity: 'item:{item}',
        eventTime: { field: 'at', unit: 'iso' },
      },
      { when: { type: 'order' }, each: 'lines', entity: 'item:{lines.item}', value: 'lines.price' },
      { ignore: { type: 'search' } },
    ];
    const config = await configured('shop', [{ path: 'events.jsonl', format: 'jsonl', mapping }]);
    const dry = await runCommand(['replay', '--mode', 'state', '--dry-run', '-c', config]);
    expect(dry.code, dry.stderr).toBe(0);
    expect(dry.stdout).toMatch(/records +4, 2 of them dead letters, 1 ignored/);
    const { code, stdout, stderr } = await runCommand(['replay', '--mode', 'state', '-c', config]);
    expect(code, stderr).toBe(0);
    expect(stdout).toMatch(/ACTION_UNKNOWN[^\n]*events\.jsonl\/0\/3: no entry of the mapping takes it: type is "refund"/);
    expect(stdout).toMatch(/FIELD_MISSING[^\n]*events\.jsonl\/0\/1: lines\[2\]: field 'lines\.item' is missing/);
    expect(stdout).toContain('left out of their actions: value 1');
    const runId = /Run (\S+)/.exec(stdout)![1]!;
    const embeddings = await readFile(join(folder, 'shop-runs', runId, 'embeddings-000000.jsonl'), 'utf8');
    expect(
      embeddings
        .trim()
        .split('\n')
        .map((line) => JSON.parse(line)),
    ).toMatchObject([{ user_id: 'u1', version: 3 }]);
  });

  it('ends with 1 where nothing could be used: a wrong unit is no quiet day', async () => {
    await writeFile(join(folder, 'in.csv'), 'user,item,ts\nu1,1,2024-01-01T00:00\nu2,1,soon\n');
    const mapping = { userId: '{user}', action: 'view', entity: 'item:{item}', eventTime: { field: 'nope', unit: 's' } };
    const csv = { columns: ['user', 'item', 'nope'], skipLines: 0 };
    const config = await configured('wrong', [
      { path: 'in.csv', format: 'csv', csv, mapping: { ...mapping, entity: 'thing:{item}' } },
    ]);
    const { code, stdout, stderr } = await runCommand(['replay', '--mode', 'state', '-c', config]);
    expect(code).toBe(1);
    expect(stderr).toContain('none of the records could be used');
    expect(stdout).toMatch(/TIME_INVALID[^\n]*must be a number of s/);
  });
});
