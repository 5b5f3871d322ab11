/** The rules that wake somebody: written of metrics that there are, for every fault within a minute, and not in an hour of health. */
import { readFile } from 'node:fs/promises';
import { describe, expect, it } from 'vitest';
import { parse } from 'yaml';
import { ALERT_RULES, type AlertRule, alertRuleFile } from '../../infra/telemetry/alerts/alert-rules.ts';
import { by, metric, metricsOf, over, where } from '../../infra/telemetry/alerts/expression.ts';
import { StreamMetrics } from '../../infra/telemetry/metrics.ts';
import { SinkMetrics } from '../../infra/telemetry/sink-metrics.ts';
import type { WatchFacts } from '../../infra/telemetry/watch-metrics.ts';
import type { OutputBatch } from '../../schemas/batch.ts';
import { alertsOf, pagesWithinAMinute, parseScrape, type Round, SCRAPE_S, type Scrape } from '../support/alerts.ts';

const AT = { topic: 'user-actions', partition: 0 };
const well: WatchFacts = {
  ready: true,
  endsAgeSeconds: 1,
  brokersAway: 0,
  progress: [{ ...AT, lag: 3, stalledSeconds: 0, oldestSeconds: 0.2 }],
  standing: [],
  unread: [],
  unavailable: [],
};

function instance() {
  const metrics = new StreamMetrics({
    version: '1',
    modelDigest: 'abc',
    delivery: 'exactly-once',
    actions: [],
    maxInFlightBatches: 2,
    maxBufferedBytes: 1,
  });
  metrics.state('RUNNING');
  metrics.watch(well);
  return metrics;
}

/** A batch of which so many records were refused. */
const batchOf = (records: number, refused: number): OutputBatch => ({
  source: {
    ...AT,
    records: Array.from({ length: records }, (_, offset) => ({ position: { ...AT, offset }, value: null })),
    nextOffset: records,
    readAtMs: 0,
    ack: () => undefined,
  },
  processed: [],
  deadLetters: Array.from({ length: refused }, (_, offset) => ({
    position: { ...AT, offset },
    code: 'TIME_INVALID' as const,
    step: 'decode',
    message: '',
    original: null,
  })),
  embeddings: [],
  scores: [],
  quality: [],
});

/** What fires when an instance that was well does `fault` from now on, at every scrape. */
async function pages(fault: (metrics: StreamMetrics, second: number) => void): Promise<string[]> {
  const metrics = instance();
  const healthy = await metrics.text();
  const texts: string[] = [];
  for (let second = 0; second <= 60; second += SCRAPE_S) {
    fault(metrics, second);
    texts.push(await metrics.text());
  }
  return pagesWithinAMinute(ALERT_RULES, healthy, (second) => texts[second / SCRAPE_S]!);
}
const unready =
  (more: Partial<WatchFacts> = {}) =>
  (metrics: StreamMetrics) =>
    metrics.watch({ ...well, ready: false, ...more });
const gone = async () => pagesWithinAMinute(ALERT_RULES, await instance().text(), null);
const sinkAway = async () => {
  const metrics = new SinkMetrics({ maxBufferedBytes: 1 });
  metrics.watch(well);
  const healthy = await metrics.text();
  metrics.retried();
  metrics.watch({ ...well, ready: false });
  return pagesWithinAMinute(ALERT_RULES, healthy, await metrics.text());
};

/** Of `npm run faults`, by name: the pages that fire where it is left as it is; none where nothing is at fault. */
const FAULTS: Readonly<Record<string, (() => Promise<readonly string[]>) | 'no fault'>> = {
  'movielens-equals-full-encode': 'no fault',
  'replay-verifies-live-movielens': 'no fault',
  'replay-verifies-live-synthetic': 'no fault',
  'no-gap-by-rebalances': 'no fault',
  'no-gap-after-kill-9': gone,
  'no-gap-after-kill-9-at-least-once': gone,
  'state-survives-the-loss-of-the-store': gone,
  'a-damaged-store-is-rebuilt': gone,
  'a-standby-takes-over-warm': gone,
  // Frozen, it does not answer.
  'a-zombie-is-fenced': gone,
  'no-gap-after-the-loss-of-a-leader': () => pages((metrics) => metrics.watch({ ...well, brokersAway: 1 })),
  // A command that ends with its exit code, and has no metrics.
  backfill: 'no fault',
  'the-sink-waits-for-clickhouse': sinkAway,
  'the-sink-stops-on-a-full-disk': gone,
  'spoilt-records-become-dead-letters': () => pages((metrics) => metrics.observeOutput(batchOf(500, 400), 0)),
};

describe('the alert rules', () => {
  it('are the file that is deployed (npx tsx .ci/write-alert-rules.mjs)', async () => {
    expect(parse(await readFile('infra/deploy/prometheus-rules.yaml', 'utf8'))).toEqual(alertRuleFile());
  });

  it('are of metrics that there are', async () => {
    const sink = new SinkMetrics({ maxBufferedBytes: 1 });
    const names = new Set(
      [await instance().text(), await sink.text()].flatMap((text) =>
        [...text.matchAll(/^# TYPE (\S+) (\S+)$/gm)].flatMap(([, name, type]) =>
          type === 'histogram' ? [`${name}_bucket`, `${name}_sum`, `${name}_count`] : [name!],
        ),
      ),
    );
    // Prometheus' own.
    names.add('up');
    for (const { alert, expression } of ALERT_RULES)
      for (const name of metricsOf(expression)) expect([alert, name, names.has(name)]).toEqual([alert, name, true]);
  });

  it('are all explained', () => {
    for (const { summary } of ALERT_RULES) expect(summary.length).toBeGreaterThan(20);
    expect(new Set(ALERT_RULES.map(({ alert }) => alert)).size).toBe(ALERT_RULES.length);
  });

  it('page for every fault of the fault suite within a minute', async () => {
    const suite = await readFile('bench/faults/main.ts', 'utf8');
    const listed = /const promises[^{]*\{\n([\s\S]*?)\n\};/.exec(suite)![1]!;
    const names = [...listed.matchAll(/^ {2}'?([\w-]+)'?: \{/gm)].map(([, name]) => name!);
    expect(names.length).toBeGreaterThan(10);
    expect(Object.keys(FAULTS).sort()).toEqual(names.sort());
    for (const [name, fault] of Object.entries(FAULTS))
      if (fault !== 'no fault') expect([name, (await fault()).length > 0]).toEqual([name, true]);
  });

  it.each<[string, string, () => Promise<string[]>]>([
    ['HstuNotReady', 'an instance that restores again and again', () => pages((m) => (m.state('RESTORING'), unready()(m)))],
    ['HstuFailed', 'an instance that has FAILED and not ended', () => pages((m) => m.state('FAILED'))],
    ['HstuBrokerAway', 'all brokers away', () => pages(unready({ brokersAway: 3 }))],
    [
      'HstuTopicUnavailable',
      'an input topic that is deleted',
      () => pages(unready({ unavailable: [{ topic: 'user-actions', code: 'TOPICS_INVALID' }] })),
    ],
    [
      'HstuTopicUnavailable',
      'a right that was taken away',
      () => pages(unready({ unavailable: [{ topic: 'user-actions', code: 'KAFKA_AUTHORIZATION' }] })),
    ],
    [
      'HstuPartitionStands',
      'a batch that cannot be read',
      () => pages((m) => unready({ standing: [{ ...AT, code: 'KAFKA_FAILED', forMs: 20_000 }] })(m)),
    ],
    [
      'HstuPartitionsAdded',
      'partitions that nobody reads',
      () => pages(unready({ unread: [{ ...AT, partition: 4, records: 0 }] })),
    ],
    [
      'HstuStuck',
      'lag that grows while nothing is committed, everything else green',
      () =>
        pages((m, second) =>
          m.watch({ ...well, progress: [{ ...AT, lag: 10 * second, stalledSeconds: second, oldestSeconds: second }] }),
        ),
    ],
    [
      'HstuLagUnknown',
      'ends that nobody tells, everything else green',
      () => pages((m, second) => m.watch({ ...well, endsAgeSeconds: second })),
    ],
    ['HstuRecordsLost', 'records that retention took', () => pages((m, second) => second === 15 && m.recordsLost(7))],
    ['HstuEmbeddingsWrong', 'an embedding that is wrong', () => pages((m, second) => second === 15 && m.shadowChecked(1, true))],
    [
      'HstuRecovering',
      'commits that fail again and again',
      () => pages((m) => (m.recovering('STORE_FAILED'), m.recovering('STORE_FAILED'))),
    ],
    [
      'HstuDeadLetterStorm',
      'a clock or a producer that spoils all records',
      () => pages((m) => m.observeOutput(batchOf(300, 300), 0)),
    ],
    ['HstuDown', 'a process that is gone', gone],
    ['HstuSinkBehind', 'a ClickHouse that is away', sinkAway],
  ])('%s: %s', async (alert, _, fired) => {
    expect(await fired()).toContain(alert);
  });

  it('page for no instance at all', () => {
    const rounds: Round[] = [0, 15, 30, 45, 60].map((atS) => ({ atS, scrapes: {} }));
    expect([
      ...alertsOf(
        ALERT_RULES.filter(({ severity }) => severity === 'page'),
        rounds,
      ).keys(),
    ]).toEqual(['HstuAbsent']);
  });

  it('do not page in an hour of health: load, a few dead letters, a restart, a rebalance, a recovery, late connections', async () => {
    let metrics = instance();
    const rounds: Round[] = [];
    for (let atS = 0; atS <= 3_600; atS += SCRAPE_S) {
      const minute = Math.floor(atS / 60);
      let scrape: Scrape | undefined;
      metrics.observeOutput(batchOf(2_000, minute % 7 === 0 ? 3 : 0), 0);
      metrics.watch({
        ...well,
        endsAgeSeconds: (atS * 7) % 3,
        progress: [{ ...AT, lag: (atS * 13) % 40_000, stalledSeconds: (atS * 5) % 4, oldestSeconds: (atS * 11) % 20 }],
      });
      if (atS === 600) metrics.recovering('KAFKA_FAILED');
      if (atS % 300 === 0) metrics.rebalanced();
      // A roll-out: away for a scrape, restoring for one.
      if (atS === 1_800) scrape = null;
      if (atS === 1_815) {
        metrics = instance();
        metrics.state('RESTORING');
        metrics.watch({ ...well, ready: false });
      }
      if (atS === 1_830) metrics.state('RUNNING');
      rounds.push({ atS, scrapes: { a: scrape === undefined ? await metrics.text() : scrape } });
    }
    expect([
      ...alertsOf(
        ALERT_RULES.filter(({ severity }) => severity === 'page'),
        rounds,
      ),
    ]).toEqual([]);
  });
});

describe('the evaluator of the tests', () => {
  const rule = (expression: AlertRule['expression'], held?: AlertRule['for']): AlertRule => ({
    alert: 'A',
    expression,
    severity: 'page',
    summary: '',
    ...(held !== undefined && { for: held }),
  });
  const rounds = (...texts: Scrape[]): Round[] => texts.map((text, i) => ({ atS: 15 * i, scrapes: { a: text } }));

  it('reads the text that Prometheus reads', () => {
    expect(parseScrape('# HELP x y\nx 1\ny{a="b",c="d e"} 2.5\nz{le="+Inf"} +Inf\n')).toEqual([
      { name: 'x', labels: {}, value: 1 },
      { name: 'y', labels: { a: 'b', c: 'd e' }, value: 2.5 },
      { name: 'z', labels: { le: '+Inf' }, value: Number.POSITIVE_INFINITY },
    ]);
  });

  it('waits for as long as a rule must hold, and begins anew when it did not', () => {
    const held = rule(where(metric('x'), '>', 0), '30s');
    expect(alertsOf([held], rounds('x 1', 'x 1', 'x 0', 'x 1', 'x 1')).size).toBe(0);
    expect(alertsOf([held], rounds('x 0', 'x 1', 'x 1', 'x 1')).get('A')).toBe(45);
  });

  it('takes the fall of a counter for a restart, and counts what came after', () => {
    const rises = rule(where(over('increase', 'x', '1m'), '>', 4));
    expect(alertsOf([rises], rounds('x 10', 'x 2', 'x 4')).size).toBe(0);
    expect(alertsOf([rises], rounds('x 10', 'x 2', 'x 5')).get('A')).toBe(30);
    expect(alertsOf([rises], rounds('x 100')).size).toBe(0);
  });

  it('counts and sums by label, and finds what is absent', () => {
    const two = rule(where(by('count', ['a'], metric('x')), '>', 1));
    expect(alertsOf([two], rounds('x{a="1",b="1"} 0\nx{a="2",b="1"} 0')).size).toBe(0);
    expect(alertsOf([two], rounds('x{a="1",b="1"} 0\nx{a="1",b="2"} 0')).size).toBe(1);
    expect(alertsOf([rule({ op: 'absent', of: metric('x') })], rounds('x 0')).size).toBe(0);
    expect(alertsOf([rule({ op: 'absent', of: metric('x') })], rounds('y 0')).size).toBe(1);
    expect(alertsOf([rule(where(metric('up'), '==', 0))], rounds(null)).size).toBe(1);
  });
});
