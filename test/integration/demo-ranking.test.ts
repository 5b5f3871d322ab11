/** The two-stage demo, as a user runs it. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { runCommand } from '../support/command-line.ts';

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'hstu-demo-'));
});
afterAll(() => rm(folder, { recursive: true, force: true, maxRetries: 20, retryDelay: 250 }));

/** Cells of the table after a line, by row. */
function tableAfter(text: string, title: string): string[][] {
  const lines = text
    .slice(text.indexOf(`\n${title}\n`))
    .split('\n')
    .slice(2);
  const end = lines.findIndex((line) => line.startsWith('└'));
  return lines.slice(0, end).flatMap((line) =>
    line.startsWith('│')
      ? [
          line
            .split('│')
            .slice(1, -1)
            .map((cell) => cell.trim()),
        ]
      : [],
  );
}

it('shows what was retrieved and how it was ranked, with every task, before and after the last action', async () => {
  const clickhouse = `clickhouse.path=${join(folder, 'clickhouse')}`;
  const run = await runCommand(['demo', '--bundle', 'ranking', '--limit', '300', '--set', clickhouse, '--set', 'scores.topK=5']);
  expect(run.code, run.stderr).toBe(0);
  const [before, after] = ['Before the last action', 'After it'].map((title) => tableAfter(run.stdout, title));
  for (const rows of [before!, after!]) {
    const [head, ...places] = rows;
    expect(head).toEqual(['place', 'retrieved', 'dot product', 'ranked', 'was', 'score', 'p(like)', 'p(love)', 'p(tag)']);
    expect(places).toHaveLength(5);
    const column = (name: string) => places.map((row) => Number(row[head!.indexOf(name)]));
    for (const name of ['dot product', 'score']) expect(column(name)).toEqual([...column(name)].sort((a, b) => b - a));
    // Combined as the bundle weighs them, to the digits shown.
    for (const [i, score] of column('score').entries()) {
      const combined = column('p(like)')[i]! + column('p(love)')[i]! + 0.25 * column('p(tag)')[i]!;
      expect(Math.abs(score - combined)).toBeLessThan(0.01);
    }
    expect(column('was').every((place) => place >= 1 && place <= 25)).toBe(true);
    expect(column('was')).not.toEqual([1, 2, 3, 4, 5]);
  }
  expect(after).not.toEqual(before);
  expect(run.stdout).toMatch(/ranking +✓ max/);
  expect(run.stdout).toContain('Trained on the events before 2016-03-30');
});
