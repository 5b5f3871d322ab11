import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { drawPictures } from '../../bench/pictures.ts';
import type { Report } from '../../bench/report.ts';

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'hstu-pictures-'));
});
afterAll(() => rm(folder, { recursive: true }));

const peer = (history: number, system: string, eventsPerSecond: number) => ({
  history,
  system,
  eventsPerSecond,
  ratio: 1,
  p50Ms: 1,
  p99Ms: 1,
  maxDelta: 0,
});
const report: Report = {
  date: '',
  machine: { cpu: 'a processor', cores: 2, memoryGB: 1, node: '', kernel: '', onnxruntime: '' },
  commit: 'c0ffee',
  digests: {},
  figures: { peers: [peer(200, 'exactlyOnce', 5704), peer(200, 'kafkaStreams', 1431)] },
  runs: {},
  failed: {},
};

it('draws what the report has, by itself: figures, machine and commit, no script, no number that is none', async () => {
  const files = await drawPictures(report, folder);
  expect(files.map((file) => basename(file))).toEqual(['peers.svg']);
  const svg = await readFile(files[0]!, 'utf8');
  for (const said of ['5,704', '1,431', 'a processor', 'c0ffee']) expect(svg).toContain(said);
  for (const not of ['NaN', '<script', 'href']) expect(svg).not.toContain(not);
});
