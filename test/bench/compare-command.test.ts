import { spawnSync } from 'node:child_process';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, expect, it } from 'vitest';

const MAIN = fileURLToPath(new URL('../../bench/main.ts', import.meta.url));
const replay = (ratio: number) => ({
  commit: 'c',
  machine: {},
  date: 'd',
  failed: {},
  figures: { replay: [{ L: 2, bulkEventsPerSecond: 1, stepEventsPerSecond: 1, ratio, peakRssBytes: 1 }] },
});
let folder: string;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'hstu-compare-'));
  await writeFile(join(folder, 'before.json'), JSON.stringify(replay(4)));
  await writeFile(join(folder, 'worse.json'), JSON.stringify(replay(2)));
});
afterAll(() => rm(folder, { recursive: true }));

const compare = (report: string, ...more: string[]) =>
  spawnSync(
    process.execPath,
    [
      ...['--import', 'tsx', MAIN, 'compare'],
      ...['--baseline', join(folder, 'baseline.json'), '--report', join(folder, report), ...more],
    ],
    { encoding: 'utf8' },
  );

it('accepts a report as the baseline, and fails on a worse one with the figure named', async () => {
  expect(compare('before.json', '--accept')).toMatchObject({ status: 0 });
  expect(JSON.parse(await readFile(join(folder, 'baseline.json'), 'utf8')).ratios).toEqual({ replay: { 'bulk / step, L 2': 4 } });
  const worse = compare('worse.json');
  expect([worse.status, worse.stdout]).toEqual([1, expect.stringMatching(/bulk \/ step, L 2.*-50\.0 %.*-30\.0 %.*REGRESSION/)]);
});
