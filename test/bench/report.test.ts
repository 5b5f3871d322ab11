import { expect, it } from 'vitest';
import { mergeReports, type Report } from '../../bench/report.ts';

const replay = (ratio: number) => [{ L: 2, bulkEventsPerSecond: ratio, stepEventsPerSecond: 1, ratio, peakRssBytes: 1 }];
const report = (commit: string, figures: Report['figures']): Report => ({
  date: commit,
  machine: { cpu: '', cores: 2, memoryGB: 24, node: '', kernel: '', onnxruntime: '' },
  commit,
  digests: {},
  figures,
  runs: Object.fromEntries(
    Object.keys(figures).map((suite) => [suite, { date: commit, commit, seconds: 1, peakRssBytes: 1, kvBytes: 0 }]),
  ),
  failed: {},
});

it('a suite that was run anew takes the place of its older figures, and says of which commit it is', () => {
  const merged = mergeReports(report('old', { replay: replay(1), workers: [] }), report('new', { replay: replay(2) }));
  expect(merged.figures).toEqual({ replay: replay(2), workers: [] });
  expect(Object.entries(merged.runs).map(([suite, { commit }]) => [suite, commit])).toEqual([
    ['replay', 'new'],
    ['workers', 'old'],
  ]);
});
