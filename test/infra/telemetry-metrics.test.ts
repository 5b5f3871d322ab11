import { readFile } from 'node:fs/promises';
import { afterEach, describe, expect, it, vi } from 'vitest';
import { StreamMetrics } from '../../infra/telemetry/metrics.ts';
import type { WatchFacts } from '../../infra/telemetry/watch-metrics.ts';
import type { Disposition } from '../../schemas/action.ts';
import type { OutputBatch } from '../../schemas/batch.ts';
import type { CacheOutcome, EncoderLoad, EncoderStats } from '../../schemas/encoding.ts';
import type { LifecycleState } from '../../streams/lifecycle.ts';

const create = (processMetrics = false) =>
  new StreamMetrics({
    version: '1.2.3',
    modelDigest: 'abc',
    delivery: 'exactly-once',
    actions: ['rating', 'like'],
    maxInFlightBatches: 2,
    maxBufferedBytes: 4096,
    processMetrics,
  });

/** Series to value; throws where a line is not of the Prometheus text format. */
function parse(text: string): ReadonlyMap<string, number> {
  const series = new Map<string, number>();
  for (const line of text.split('\n').filter((each) => each !== '' && !each.startsWith('#'))) {
    const match = /^([a-zA-Z_:][\w:]*(?:\{(?:[a-zA-Z_]\w*="(?:[^"\\\n]|\\.)*",?)*\})?) (\S+)$/.exec(line);
    if (match === null) throw new Error(`not a sample: ${line}`);
    if (series.has(match[1]!)) throw new Error(`twice: ${line}`);
    series.set(match[1]!, match[2] === '+Inf' ? Number.POSITIVE_INFINITY : Number(match[2]));
  }
  return series;
}
const read = async (metrics: StreamMetrics) => parse(await metrics.text());

const facts = (...progress: WatchFacts['progress']): WatchFacts => ({
  ready: true,
  endsAgeSeconds: 1.5,
  brokersAway: 0,
  progress,
  standing: [],
  unread: [],
  unavailable: [],
});
const behind = (partition: number, lag: number) => ({ topic: 't', partition, lag, stalledSeconds: 2, oldestSeconds: 3 });

const position = { topic: 'user-actions', partition: 3, offset: 10 };
const lineage = { ...position, sequenceDigest: 's', modelDigest: 'abc' };
const processed = (action: string, disposition: Disposition) => ({
  action: { eventId: 'e', userId: 'u', action, entity: 'x', eventTimeMs: 0, position },
  disposition,
});
const embedding = (rowsComputed: number, outcome: CacheOutcome) => ({
  userId: 'u',
  version: 1,
  embedding: new Float32Array(2),
  sequenceLength: 1,
  lastEventTimeMs: 0,
  queryTimeMs: 0,
  lineage,
  computedAtMs: 0,
  latencyMs: 0,
  rowsComputed,
  outcome,
});
const output: OutputBatch = {
  source: {
    topic: 'user-actions',
    partition: 3,
    records: [
      { position, value: null, timestampMs: 1_000_000 - 200 },
      { position, value: null, timestampMs: 1_000_000 - 7_000 },
      { position, value: null, timestampMs: 1_000_000 + 50 },
      { position, value: null },
    ],
    nextOffset: 14,
    readAtMs: 0,
    ack: () => {},
  },
  processed: [
    processed('rating', 'appended'),
    processed('rating', 'inserted'),
    processed('rating', 'late'),
    { ...processed('x y', 'kept'), unknownEntity: true },
  ],
  deadLetters: [
    { position, code: 'FIELD_MISSING', step: 'decode', message: '', original: null },
    { position, code: 'FIELD_MISSING', step: 'decode', message: '', original: null },
    { position, code: 'ENTITY_UNKNOWN', step: 'sequence', message: '', original: null },
  ],
  embeddings: [embedding(2, 'hit'), embedding(40, 'cold'), embedding(2, 'hit')],
  scores: [{ userId: 'u', version: 1, candidates: [], lineage, computedAtMs: 0 }],
  quality: [],
  erased: ['v', 'w'],
};

const candidates = [
  { entity: 'a', score: 1 },
  { entity: 'b', score: 1 },
];
const refused = { position, code: 'ENTITY_UNKNOWN' as const, step: 'sequence', message: '', original: null };
/** As of a batch of actions and one of requests at once. */
const asked: OutputBatch = {
  ...output,
  processed: [processed('rating+like', 'appended'), processed('rating+x', 'appended')],
  deadLetters: ['rating', 'rating', 'nonsense'].map((action) => ({ ...refused, action })),
  unknownFeatures: new Map([['language', 3]]),
  scores: [
    { userId: 'u', version: 1, candidates, lineage, computedAtMs: 0 },
    {
      userId: 'u',
      version: 1,
      requestId: 'r',
      candidates,
      leftOut: [{ entity: 'c', reason: 'denied' }],
      lineage,
      computedAtMs: 0,
    },
  ],
  requests: (['answered', 'answered', 'cold-start', 'expired'] as const).map((disposition) => ({
    request: { requestId: 'r', userId: 'u', entities: [], queryTimeMs: 0, position },
    disposition,
  })),
};

afterEach(() => void vi.useRealTimers());

const STATS: EncoderStats = {
  workers: 1,
  segments: 5,
  rowsComputed: 9,
  outcomes: { hit: 1, cold: 2, window: 0, diverged: 0, uncached: 0 },
  evictions: 4,
  restarts: 1,
  users: 3,
  kvBytesUsed: 1000,
  kvBytesBudget: 2000,
};
const IDLE = { waiting: 0, busy: 0, late: 0 };
const LOAD: EncoderLoad = { request: { waiting: 7, busy: 3, late: 2 }, update: IDLE, backfill: IDLE };
const DISK = { users: 6, bytesUsed: 500, bytesBudget: 900, spills: 11, restores: 8, skipped: 2, corrupt: 1 };
const INDEX = { rows: 200_000, lists: 1_000, fellBack: 7, wanted: 40, found: 38 };

describe('metrics', () => {
  it('count what published batches held and gave', async () => {
    const metrics = create();
    metrics.observeOutput(output, 1_000_000);
    metrics.observeOutput({ ...output, erased: [] }, 1_000_000);
    const series = await read(metrics);
    const expected = {
      hstu_batch_size_events_count: 2,
      'hstu_batch_size_events_bucket{le="2"}': 0,
      'hstu_batch_size_events_bucket{le="4"}': 2,
      hstu_end_to_end_latency_seconds_count: 6,
      hstu_end_to_end_latency_seconds_sum: 14.4,
      'hstu_end_to_end_latency_seconds_bucket{le="0.25"}': 4,
      'hstu_end_to_end_latency_seconds_bucket{le="10"}': 6,
      'hstu_events_total{disposition="appended",action="rating"}': 2,
      'hstu_events_total{disposition="late",action="rating"}': 2,
      'hstu_events_total{disposition="kept",action="other"}': 2,
      'hstu_dead_letters_total{code="FIELD_MISSING",step="decode"}': 4,
      'hstu_dead_letters_total{code="ENTITY_UNKNOWN",step="sequence"}': 2,
      hstu_erasures_total: 2,
      hstu_tokens_total: 4,
      hstu_rows_computed_total: 88,
      'hstu_cache_outcomes_total{outcome="hit"}': 4,
      'hstu_cache_outcomes_total{outcome="cold"}': 2,
      hstu_embeddings_published_total: 6,
      hstu_scores_published_total: 2,
      'hstu_unknown_entities_total{action="other"}': 2,
    };
    for (const [key, value] of Object.entries(expected)) expect([key, series.get(key)]).toEqual([key, expect.closeTo(value)]);
  });

  it('count requests, what was left out of their answers, and what was refused, by kind', async () => {
    const metrics = create();
    metrics.observeOutput(asked, 1_000_000);
    const series = await read(metrics);
    const expected = {
      'hstu_candidate_requests_total{disposition="answered"}': 2,
      'hstu_candidate_requests_total{disposition="cold-start"}': 1,
      'hstu_candidate_requests_total{disposition="expired"}': 1,
      hstu_candidates_answered_total: 2,
      'hstu_candidates_left_out_total{reason="denied"}': 1,
      hstu_scores_published_total: 2,
      'hstu_rejected_actions_total{code="ENTITY_UNKNOWN",action="rating"}': 2,
      'hstu_rejected_actions_total{code="ENTITY_UNKNOWN",action="other"}': 1,
      'hstu_unknown_side_features_total{feature="language"}': 3,
      'hstu_events_total{disposition="appended",action="rating"}': 1,
      'hstu_events_total{disposition="appended",action="like"}': 1,
      'hstu_events_total{disposition="appended",action="other"}': 1,
      hstu_tokens_total: 2,
    };
    for (const [key, value] of Object.entries(expected)) expect([key, series.get(key)]).toEqual([key, value]);
  });

  it('tell lag, buffers, flight, commits and restores by partition, and end with the partition', async () => {
    const metrics = create();
    for (const partition of [0, 1]) {
      const at = { topic: 't', partition };
      metrics.buffered(at, 100);
      metrics.inFlight(partition, 1);
      metrics.committed(0.02);
      metrics.observeOutput({ ...output, source: { ...output.source, ...at, nextOffset: 7 } }, 1_000_000);
      metrics.restore(partition, 5, 5 + partition);
    }
    metrics.watch(facts(behind(0, 10), behind(1, 11)));
    metrics.rebalanced();
    metrics.assigned([0, 1]);
    metrics.transactionAborted();
    metrics.recovering('PRODUCER_FENCED');
    metrics.recordsLost(4);
    metrics.store({ bytes: 4096, hotUsers: 12 });
    const before = await read(metrics);
    expect(before.get('hstu_consumer_lag_records{topic="t",partition="1"}')).toBe(11);
    expect(before.get('hstu_buffered_bytes{topic="t",partition="0"}')).toBe(100);
    expect(before.get('hstu_in_flight_batches{partition="0"}')).toBe(1);
    expect(before.get('hstu_committed_offset{topic="t",partition="0"}')).toBe(7);
    expect(before.get('hstu_commits_total')).toBe(2);
    expect(before.get('hstu_commit_duration_seconds_sum')).toBeCloseTo(0.04);
    expect(before.get('hstu_restoring{partition="0"}')).toBe(0);
    expect(before.get('hstu_restoring{partition="1"}')).toBe(1);
    expect(before.get('hstu_restore_done_records{partition="1"}')).toBe(5);
    expect(before.get('hstu_restore_total_records{partition="1"}')).toBe(6);
    expect(before.get('hstu_partitions_assigned')).toBe(2);
    expect(before.get('hstu_rebalances_total')).toBe(1);
    expect(before.get('hstu_transactions_aborted_total')).toBe(1);
    expect(before.get('hstu_store_bytes')).toBe(4096);
    expect(before.get('hstu_hot_users')).toBe(12);
    expect(before.get('hstu_in_flight_limit_batches')).toBe(2);
    expect(before.get('hstu_buffered_limit_bytes')).toBe(4096);
    expect(before.get('hstu_recoveries_total{code="PRODUCER_FENCED"}')).toBe(1);
    expect(before.get('hstu_records_lost_total')).toBe(4);
    metrics.assigned([0, 2]);
    const after = [...(await read(metrics)).keys()];
    expect(after.filter((key) => key.includes('partition="1"'))).toEqual([]);
    expect(after.filter((key) => key.includes('partition="0"'))).toHaveLength(9);
  });

  it('say what the catalogue is that is served, and what was refused', async () => {
    const metrics = create();
    const catalogue = { digest: 'd', offered: 7, added: 2, retired: 1, allowed: 7 };
    metrics.catalogueApplied({ ...catalogue, offered: 9 });
    metrics.catalogueApplied(catalogue);
    metrics.entityRejected('no-content');
    metrics.entityRejected('no-content');
    metrics.catalogueLag(1, 5);
    const values = await read(metrics);
    const found = [...values].filter(([series]) => series.startsWith('hstu_catalogue_'));
    expect(Object.fromEntries(found)).toEqual({
      'hstu_catalogue_entities{state="offered"}': 7,
      'hstu_catalogue_entities{state="added"}': 2,
      'hstu_catalogue_entities{state="retired"}': 1,
      'hstu_catalogue_entities{state="allowed"}': 7,
      hstu_catalogue_updates_total: 2,
      'hstu_catalogue_rejects_total{reason="no-content"}': 2,
      'hstu_catalogue_lag_records{partition="1"}': 5,
    });
  });

  it('name one model that is served, and the one that is loaded beside it while it is', async () => {
    const metrics = create();
    const models = async () => [...(await read(metrics)).keys()].filter((key) => /^hstu_(model|build)_info/.test(key)).sort();
    const build = (digest: string) => `hstu_build_info{version="1.2.3",model_digest="${digest}",delivery="exactly-once"}`;
    const model = (digest: string, role: string) => `hstu_model_info{digest="${digest}",name="m",role="${role}"}`;
    const a = { digest: 'a', name: 'm' };
    const b = { digest: 'b', name: 'm' };
    metrics.modelServed({ ...a, actions: ['like'] });
    metrics.modelLoading(b, { done: 1, total: 4 }, 2.5);
    expect(await models()).toEqual([build('a'), model('a', 'serving'), model('b', 'loading')]);
    expect((await read(metrics)).get('hstu_model_prefill_done_users')).toBe(1);
    metrics.modelServed({ ...b, actions: ['share'] });
    metrics.modelChanged('switched', b, 0.25);
    expect(await models()).toEqual([build('b'), model('b', 'serving')]);
    const values = await read(metrics);
    expect(values.get('hstu_model_changes_total{outcome="switched"}')).toBe(1);
    expect(values.get('hstu_model_switch_seconds')).toBe(0.25);
    expect(values.get('hstu_model_prefill_users_per_second')).toBe(0);
  });

  it('are in exactly one state, of those the lifecycle has', async () => {
    const metrics = create();
    const states = ['RESTORING', 'RUNNING', 'DRAINING', 'STOPPED', 'FAILED', 'STARTING'] satisfies LifecycleState[];
    for (const state of states) {
      metrics.state(state);
      const on = [...(await read(metrics))].filter(([key, value]) => key.startsWith('hstu_lifecycle_state') && value === 1);
      expect(on.map(([key]) => key)).toEqual([`hstu_lifecycle_state{state="${state}"}`]);
    }
    expect((await read(metrics)).get('hstu_build_info{version="1.2.3",model_digest="abc",delivery="exactly-once"}')).toBe(1);
  });

  it('time steps by id', async () => {
    const metrics = create();
    metrics.step('encode', 0.004);
    metrics.step('encode', 0.4);
    const series = await read(metrics);
    expect(series.get('hstu_step_duration_seconds_count{step="encode"}')).toBe(2);
    expect(series.get('hstu_step_duration_seconds_bucket{le="0.005",step="encode"}')).toBe(1);
  });

  it('say nothing of the KV cache before the encoder has: 0 bytes would be an empty one', async () => {
    const metrics = create();
    expect(await metrics.text()).not.toContain('hstu_kv_cache_');
    metrics.watchEncoder({ stats: async () => STATS, load: LOAD });
    for (const name of ['used_bytes', 'budget_bytes', 'users', 'evictions_total'])
      expect(await metrics.text()).toMatch(new RegExp(`^hstu_kv_cache_${name} \\d`, 'm'));
  });

  it('ask the encoder at a scrape, survive one that fails, and do not wait for one that hangs', async () => {
    const metrics = create();
    let answer: () => Promise<EncoderStats> = async () => STATS;
    metrics.watchEncoder({ stats: () => answer(), load: LOAD });
    await metrics.text();
    const series = await read(metrics);
    expect(series.get('hstu_kv_cache_used_bytes')).toBe(1000);
    expect(series.get('hstu_kv_cache_budget_bytes')).toBe(2000);
    expect(series.get('hstu_kv_cache_users')).toBe(3);
    expect(series.get('hstu_kv_cache_evictions_total')).toBe(4);
    expect(series.get('hstu_encoder_worker_restarts_total')).toBe(1);
    expect([...series.keys()].filter((key) => key.startsWith('hstu_index_recall{'))).toEqual([]);
    answer = async () => ({ ...STATS, disk: DISK, index: INDEX });
    await metrics.text();
    const indexed = await read(metrics);
    expect(indexed.get('hstu_kv_disk_used_bytes')).toBe(500);
    expect(indexed.get('hstu_kv_disk_users')).toBe(6);
    for (const [event, users] of Object.entries({ spilled: 11, restored: 8, skipped: 2, corrupt: 1 }))
      expect(indexed.get(`hstu_kv_disk_records_total{event="${event}"}`)).toBe(users);
    expect(indexed.get('hstu_index_recall{index="hnsw"}')).toBe(0.95);
    expect(indexed.get('hstu_index_lists_total{by="index"}')).toBe(1_000);
    expect(indexed.get('hstu_index_lists_total{by="scan"}')).toBe(7);
    answer = () => Promise.reject(new Error('closed'));
    expect((await read(metrics)).get('hstu_kv_cache_users')).toBe(3);
    vi.useFakeTimers();
    answer = () => new Promise(() => {});
    const pending = metrics.text();
    await vi.advanceTimersByTimeAsync(1000);
    expect(parse(await pending).get('hstu_kv_cache_users')).toBe(3);
  });

  it('tell what waits for the encoder, what it turned away, and what its threads were given', async () => {
    const metrics = create();
    metrics.watchEncoder({ stats: async () => STATS, load: LOAD });
    metrics.encoderRun({ workClass: 'request', users: 5, waitedMs: [2, 200] });
    await metrics.text();
    const series = await read(metrics);
    expect(series.get('hstu_encoder_waiting_users{class="request"}')).toBe(7);
    expect(series.get('hstu_encoder_refused_total{class="request",reason="busy"}')).toBe(3);
    expect(series.get('hstu_encoder_refused_total{class="request",reason="deadline"}')).toBe(2);
    expect(series.get('hstu_encoder_wait_seconds_bucket{le="0.005",class="request"}')).toBe(1);
    expect(series.get('hstu_encoder_wait_seconds_count{class="request"}')).toBe(2);
    expect(series.get('hstu_encoder_run_users_sum{class="request"}')).toBe(5);
  });

  it('remember the worst shadow check', async () => {
    const metrics = create();
    metrics.shadowChecked(1e-6, false);
    metrics.shadowChecked(3e-6, false);
    metrics.shadowChecked(2e-6, false);
    metrics.shadowDropped(2);
    expect((await read(metrics)).get('hstu_shadow_max_abs_delta')).toBe(3e-6);
    metrics.shadowChecked(Number.NaN, true);
    const series = await read(metrics);
    expect(series.get('hstu_shadow_checks_total')).toBe(4);
    expect(series.get('hstu_shadow_mismatches_total')).toBe(1);
    expect(series.get('hstu_shadow_dropped_total')).toBe(2);
    expect(series.get('hstu_shadow_max_abs_delta')).toBe(Number.POSITIVE_INFINITY);
  });

  it('have a help text each, a name of ours, and share nothing between two streams', async () => {
    const metrics = create(true);
    const other = create();
    other.observeOutput(output, 1_000_000);
    const text = await metrics.text();
    const types = text.split('\n').filter((line) => line.startsWith('# TYPE'));
    for (const line of types) {
      const name = line.split(' ')[2]!;
      expect(name).toMatch(/^hstu_[a-z0-9_]+$/);
      expect(text).toMatch(new RegExp(`^# HELP ${name} .{5,}`, 'm'));
      if (line.endsWith(' counter') && !name.startsWith('hstu_process')) expect(name).toMatch(/_total$/);
    }
    expect(text).toContain('hstu_process_resident_memory_bytes');
    expect(parse(text).get('hstu_embeddings_published_total')).toBe(0);
    expect(metrics.contentType).toBe('text/plain; version=0.0.4; charset=utf-8');
  });

  it('are explained one by one in docs/howto/observe.md, with their type and labels', async () => {
    const metrics = create();
    const at = { topic: 't', partition: 3 };
    metrics.observeOutput(output, 1_000_000);
    metrics.observeOutput(asked, 1_000_000);
    metrics.watch({
      ...facts(behind(3, 1)),
      standing: [{ topic: 't', partition: 3, code: 'KAFKA_FAILED', forMs: 1 }],
      unread: [{ topic: 't', partition: 4, records: 0 }],
      unavailable: [{ topic: 't', code: 'TOPICS_INVALID' }],
    });
    metrics.misplaced('t');
    metrics.valuesInvalid('value', 1);
    metrics.buffered(at, 1);
    metrics.inFlight(3, 1);
    metrics.restore(3, 1, 1);
    metrics.recovering('STORE_FAILED');
    metrics.modelLoading({ digest: 'def', name: 'm' }, { done: 0, total: 1 }, 1);
    metrics.modelChanged('refused', undefined, undefined);
    metrics.catalogueApplied({ offered: 1, added: 0, retired: 0, allowed: 7 });
    metrics.entityRejected('malformed');
    metrics.catalogueLag(0, 0);
    metrics.step('encode', 1);
    metrics.encoderRun({ workClass: 'update', users: 2, waitedMs: [1] });
    metrics.watchEncoder({ stats: async () => ({ ...STATS, disk: DISK, index: INDEX }), load: LOAD });
    const text = await metrics.text();
    const labelsOf = (name: string) => {
      const sample = new RegExp(`^${name}(?:_bucket)?\\{(.*)\\} `, 'm').exec(text);
      const labels = [...(sample?.[1] ?? '').matchAll(/(\w+)="/g)].map(([, label]) => label!);
      return labels.filter((label) => label !== 'le').sort();
    };
    const found = [...text.matchAll(/^# TYPE (\S+) (\S+)$/gm)].map(([, name, type]) =>
      [name, type, ...labelsOf(name!)].join(' '),
    );
    const page = await readFile('docs/howto/observe.md', 'utf8');
    const told = [...page.matchAll(/^\| `(hstu_\w+)` *\| (\w+) *\| ([^|]*)\|/gm)].map(([, name, type, labels]) =>
      [name, type, ...[...labels!.matchAll(/\w+/g)].map(String).sort()].join(' '),
    );
    expect(told.sort()).toEqual(found.sort());
    const known = new Set(found.map((line) => line.split(' ')[0]));
    for (const [name] of page.matchAll(/hstu_\w+/g)) {
      const base = name.replace(/_(bucket|count|sum)$/, '');
      if (!/^hstu_(process|nodejs)/.test(name)) expect([name, known.has(base) || known.has(name)]).toEqual([name, true]);
    }
  });
});
