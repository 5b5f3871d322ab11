/** `hstu-streams score`, as a user calls it. */
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { writeBundle } from '../../models/hstu/bundle.ts';
import { RANKING } from '../models/bundles.ts';
import { runCommand } from '../support/command-line.ts';

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'hstu-score-'));
  await writeBundle(join(folder, 'bundle'), RANKING['STU, additive tokens, values, both biases']!);
});
afterAll(() => rm(folder, { recursive: true, force: true }));

it('scores candidates by task, names what it left out, and ends with 1 where a line was at fault', async () => {
  const [input, output] = [join(folder, 'in.jsonl'), join(folder, 'out.jsonl')];
  const line = {
    userId: 'ann',
    events: [{ entity: 'item:1', eventTimeMs: 1e12, action: 'rate', value: 4 }],
    candidates: ['item:2', 'item:3', 'song:1'],
    queryTimeMs: 1e12 + 1000,
  };
  await writeFile(input, `${JSON.stringify(line)}\n\n${JSON.stringify({ ...line, userId: 'new', events: [] })}\nno line\n`);
  const run = await runCommand([
    'score',
    '--bundle',
    join(folder, 'bundle'),
    '--input',
    input,
    '--output',
    output,
    '--unknown-candidates',
    'leave-out',
  ]);
  expect(run.stderr).toContain('2 users scored');
  expect(run.code).toBe(1);
  const results = (await readFile(output, 'utf8'))
    .trim()
    .split('\n')
    .map((text) => JSON.parse(text) as Record<string, unknown>);
  const tasks = { like: expect.any(Number), buy: expect.any(Number), hide: expect.any(Number) };
  const candidates = [
    { entity: expect.stringMatching(/^item:[23]$/), score: expect.any(Number), tasks },
    { entity: expect.stringMatching(/^item:[23]$/), score: expect.any(Number), tasks },
  ];
  const leftOut = [{ entity: 'song:1', reason: 'unknown-entity' }];
  expect(results).toEqual([
    { userId: 'ann', candidates, leftOut },
    { userId: 'new', candidates, leftOut, coldStart: true },
    { deadLetters: [expect.objectContaining({ code: 'RECORD_MALFORMED' })] },
  ]);
});

it('refuses what is no file, and what it does not know, with 2', async () => {
  const missing = await runCommand([
    'score',
    '--bundle',
    join(folder, 'bundle'),
    '--input',
    join(folder, 'none'),
    '--output',
    'x',
  ]);
  expect(missing).toMatchObject({ code: 2, stderr: expect.stringContaining('cannot read') });
});
