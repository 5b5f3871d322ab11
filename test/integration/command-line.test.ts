import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { runCommand } from '../support/command-line.ts';

const BUNDLE = resolve('examples/movielens/bundle');
const RATINGS = resolve('examples/movielens/data/ratings.csv');
let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'hstu-cli-'));
});
afterAll(() => rm(folder, { recursive: true, force: true, maxRetries: 20, retryDelay: 250 }));

/** A replay of its own: ratings by default, a ClickHouse folder by name. */
async function configuration(name: string, changes: { path?: string; format?: string; bundle?: string; more?: string } = {}) {
  const file = join(folder, `${name}.yaml`);
  const { path = RATINGS, format = 'csv', bundle = BUNDLE, more = '' } = changes;
  await writeFile(
    file,
    `bundle: ${bundle}
publish: every-event
source:
  maxInFlightBatches: 4
  files:
    - path: ${path}
      format: ${format}
      mapping:
        userId: '{userId}'
        action: rating
        entity: 'movie:{movieId}'
        value: rating
        eventTime: { field: timestamp, unit: s }
clickhouse: { path: ${join(folder, name)} }
${more}`,
  );
  return file;
}

const jsonLines = (text: string) =>
  text
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line) as Record<string, never>);

describe('encode', () => {
  it('gives the same rows whole and event by event', async () => {
    const vectors = resolve('test/golden/hstu-research/research-d32-l2-h2');
    const bundle = join(folder, 'imported');
    const imported = await runCommand([
      'model',
      'import',
      'research',
      '--weights',
      `${vectors}.safetensors`,
      '--config',
      `${vectors}.json`,
      '--out',
      bundle,
    ]);
    expect(imported.stderr).toBe('');
    expect(imported.stdout).toContain('provisional-tail');
    const { cases } = JSON.parse(await readFile(`${vectors}.json`, 'utf8')) as {
      cases: { ids: number[]; timestamps: number[]; queryTime: number; rows: number[][]; top10: number[] }[];
    };
    const input = join(folder, 'users.jsonl');
    const lines = cases.map(({ ids, timestamps, queryTime }, i) =>
      JSON.stringify({
        userId: `user-${i}`,
        events: ids.map((id, at) => ({ entity: String(id), eventTimeMs: 1000 * timestamps[at]! })),
        queryTimeMs: 1000 * queryTime,
      }),
    );
    await writeFile(input, `${lines.join('\n')}\n`);
    for (const mode of ['full', 'incremental']) {
      const output = join(folder, `${mode}.jsonl`);
      const run = await runCommand([
        'encode',
        '--bundle',
        bundle,
        '--input',
        input,
        '--output',
        output,
        '--mode',
        mode,
        '--rows',
        '--top-k',
        '10',
      ]);
      expect(run.code).toBe(0);
      const results = jsonLines(await readFile(output, 'utf8')) as unknown as {
        userId: string;
        embedding: number[];
        rows: number[][];
        topK: { entity: string }[];
      }[];
      for (const [i, { rows, top10 }] of cases.entries()) {
        const worst = Math.max(...rows.flatMap((row, r) => row.map((value, d) => Math.abs(value - results[i]!.rows[r]![d]!))));
        expect(worst, `${mode}, case ${i}`).toBeLessThan(1e-5);
        expect(results[i]!.embedding).toEqual(results[i]!.rows.at(-1));
        expect(results[i]!.topK.map(({ entity }) => Number(entity))).toEqual(top10);
      }
    }
  });

  it('answers a faulty line with its fault, and the others with embeddings', async () => {
    const input = join(folder, 'faulty.jsonl');
    const output = join(folder, 'faulty-out.jsonl');
    const good = { userId: 'a', events: [{ entity: 'movie:1', eventTimeMs: 1e12 }] };
    const lines = [
      '{"userId": "a", "events": [',
      JSON.stringify({ userId: 'b', events: [] }),
      JSON.stringify({ userId: 'c', events: [{ entity: 'movie:1', eventTimeMs: -3 }] }),
      JSON.stringify({ userId: 'd', events: [{ entity: 'movie:none', eventTimeMs: 1e12 }, good.events[0]] }),
      JSON.stringify(good),
    ];
    await writeFile(input, lines.join('\n'));
    const run = await runCommand(['encode', '--bundle', BUNDLE, '--input', input, '--output', output]);
    expect(run.code).toBe(1);
    const results = jsonLines(await readFile(output, 'utf8')) as unknown as {
      embedding?: number[];
      deadLetters?: { code: string }[];
    }[];
    expect(results.map(({ deadLetters }) => deadLetters?.map(({ code }) => code))).toEqual([
      ['RECORD_MALFORMED'],
      ['FIELD_INVALID'],
      ['FIELD_INVALID'],
      ['ENTITY_UNKNOWN'],
      undefined,
    ]);
    expect(results.map(({ embedding }) => embedding?.length !== undefined)).toEqual([false, false, false, true, true]);
  });

  it('gives nothing for nothing', async () => {
    const input = join(folder, 'empty.jsonl');
    await writeFile(input, '');
    const run = await runCommand(['encode', '--bundle', BUNDLE, '--input', input, '--output', join(folder, 'empty-out.jsonl')]);
    expect(run).toMatchObject({ code: 0 });
    expect(await readFile(join(folder, 'empty-out.jsonl'), 'utf8')).toBe('');
  });
});

describe('a fault of configuration is one clear message and exit code 2', () => {
  const refused = async (args: readonly string[], ...says: (string | RegExp)[]) => {
    const { code, stderr, stdout } = await runCommand(args);
    expect(stderr).not.toContain('    at ');
    for (const text of says) expect(stderr + stdout).toMatch(text);
    expect(code).toBe(2);
  };

  it('no such configuration', () => refused(['replay', '-c', join(folder, 'none.yaml')], 'CONFIG_INVALID', 'none.yaml'));

  it('every wrong setting at once', async () => {
    const file = await configuration('wrong', { format: 'xml', more: 'encoder: { workers: 0 }\ntypo: 1' });
    await refused(['replay', '-c', file], /source\.files\.0\.format/, /encoder\.workers/, /typo/, '3 problem');
  });

  it('no such data', async () =>
    refused(['replay', '-c', await configuration('nodata', { path: '/nowhere/x.csv' })], 'SOURCE_UNREADABLE', '/nowhere/x.csv'));

  it('a truncated bundle', async () => {
    const bundle = join(folder, 'truncated');
    await mkdir(bundle);
    for (const file of await readdir(BUNDLE)) {
      const bytes = await readFile(join(BUNDLE, file));
      await writeFile(join(bundle, file), file === 'model.safetensors' ? bytes.subarray(0, 100_000) : bytes);
    }
    await refused(['replay', '-c', await configuration('cut', { bundle })], 'BUNDLE_INVALID', 'truncated');
    await refused(['model', 'inspect', bundle], 'BUNDLE_INVALID', 'truncated');
  });

  it('a folder that cannot be written', async () => {
    await writeFile(join(folder, 'a-file'), '');
    const file = await configuration('unwritable');
    await refused(
      ['replay', '-c', file, '--limit', '10', '--set', `clickhouse.path=${join(folder, 'a-file', 'inside')}`],
      'STORE_UNAVAILABLE',
      'a-file',
    );
    const output = join(folder, 'a-file', 'out.jsonl');
    await refused(
      ['encode', '--bundle', BUNDLE, '--input', join(folder, 'a-file'), '--output', output],
      'CONFIG_INVALID',
      'out.jsonl',
    );
  });

  it('wrong arguments', () => refused(['replay', '--limit', 'many'], 'many'));
});

describe('replay', () => {
  it('is the same after Ctrl-C and a second call as undisturbed, and a third call adds nothing', {
    timeout: 180_000,
  }, async () => {
    const limit = ['--limit', '3000'];
    const file = await configuration('interrupted');
    const stopped = await runCommand(['replay', '-c', file, ...limit], { interruptAt: /replaying/ });
    expect(stopped.stdout).toMatch(/stopped after [\d,]+ of 3,000 events/);
    expect(stopped.code).toBe(130);
    const resumed = await runCommand(['replay', '-c', file, ...limit]);
    expect(resumed.code).toBe(0);
    const undisturbed = await configuration('undisturbed');
    expect((await runCommand(['replay', '-c', undisturbed, ...limit])).code).toBe(0);
    await runCommand(['replay', '-c', file, ...limit]);

    const digest = async (config: string) => {
      const { stdout, stderr } = await runCommand(['query', 'disposition-counts', '-c', config, '--format', 'json']);
      expect(stderr).toBe('');
      const { stdout: cache } = await runCommand(['query', 'prequential-by-year', '-c', config, '--format', 'json']);
      return [JSON.parse(stdout), JSON.parse(cache)] as unknown;
    };
    const answers = await digest(file);
    expect(answers).toEqual(await digest(undisturbed));
    expect(JSON.stringify(answers)).toContain('"actions":3000');
  });

  it('serves a second command on the folder that a first one holds', async () => {
    const file = await configuration('shared');
    await runCommand(['replay', '-c', file, '--limit', '200']);
    const [run, query] = await Promise.all([
      runCommand(['replay', '-c', file, '--limit', '3000']),
      runCommand(['query', 'disposition-counts', '-c', file, '--format', 'json']),
    ]);
    expect(run.code).toBe(0);
    expect(query.code).toBe(0);
    expect(JSON.parse(query.stdout)).not.toEqual([]);
  });

  it('turns bad rows into dead letters, with their code and step, and goes on', async () => {
    const path = join(folder, 'bad.csv');
    await writeFile(
      path,
      'userId,movieId,rating,timestamp\n1,1,4.0,964982703\n1,3\n,3,4,964982704\n2,6,4.0,never\n2,999999999,4.0,964982705\n2,6,"4.0,964982706\n3,6,4.0,99999999999999\n',
    );
    const file = await configuration('bad', { path });
    expect((await runCommand(['replay', '-c', file])).code).toBe(0);
    const { stdout } = await runCommand(['query', 'dead-letter-summary', '-c', file, '--format', 'json']);
    const letters = JSON.parse(stdout) as { code: string; step: string }[];
    expect(letters.every(({ step }) => step === 'decode' || step === 'sequence')).toBe(true);
    expect(letters.map(({ code }) => code)).toEqual(expect.arrayContaining(['TIME_INVALID', 'ENTITY_UNKNOWN']));
  });

  it('leaves nothing of an erased user in ClickHouse but what came after', async () => {
    const path = join(folder, 'erased.csv');
    const rows = [
      '1,1,100,rating',
      '2,2,200,rating',
      '1,3,300,rating',
      '1,0,400,erase',
      '1,4,500,rating',
      '3,5,600,rating',
      '3,0,700,erase',
    ];
    await writeFile(path, `userId,movieId,timestamp,kind\n${rows.join('\n')}\n`);
    const file = await configuration('erased', { path });
    await writeFile(
      file,
      (await readFile(file, 'utf8')).replace('action: rating', "action: '{kind}'").replace('        value: rating\n', ''),
    );
    expect((await runCommand(['replay', '-c', file, '--limit', '3', '--set', 'source.batchEvents=1'])).code).toBe(0);
    expect((await runCommand(['replay', '-c', file, '--set', 'source.batchEvents=1'])).code).toBe(0);
    const story = async (user: string) => {
      const { stdout } = await runCommand(['query', 'user-story', '-c', file, '-p', `user_id=${user}`, '--format', 'json']);
      return (JSON.parse(stdout) as { entity: string }[]).map(({ entity }) => entity);
    };
    expect(await story('1')).toEqual(['movie:4']);
    expect(await story('2')).toEqual(['movie:2']);
    expect(await story('3')).toEqual([]);
    const { stdout } = await runCommand(['query', 'cache-outcomes', '-c', file, '--format', 'json']);
    const embeddings = (JSON.parse(stdout) as { embeddings: number }[]).reduce((sum, row) => sum + row.embeddings, 0);
    expect(embeddings).toBe(2);
  });

  it('of an empty file is an empty run', async () => {
    const path = join(folder, 'empty.csv');
    await writeFile(path, 'userId,movieId,rating,timestamp\n');
    const run = await runCommand(['replay', '-c', await configuration('empty', { path })]);
    expect(run.code).toBe(0);
    expect(run.stdout).toContain('0 of 0');
  });
});

describe('explain and doctor', () => {
  it('draws the topology as the documentation has it', async () => {
    const { stdout } = await runCommand(['explain', '--mermaid']);
    expect(stdout).toBe(await readFile('docs/topology.mmd', 'utf8'));
    const live = await runCommand(['explain', '-c', 'examples/movielens/live.yaml', '--mermaid']);
    expect(live.stdout).toBe(await readFile('docs/topology-live.mmd', 'utf8'));
  });

  it('finds this machine fit, and says what mends a fault', async () => {
    const fit = await runCommand(['doctor']);
    expect(fit.stdout).toMatch(/✓ ONNX Runtime/);
    expect(fit.code).toBe(0);
    const unfit = await runCommand(['doctor', '--set', 'bundle=/nowhere']);
    expect(unfit.stdout).toMatch(/✗ model bundle.*\/nowhere/);
    expect(unfit.stdout).toMatch(/mend: hstu-streams model import/);
    expect(unfit.code).toBe(2);
  });
});
