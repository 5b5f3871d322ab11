/** When somebody is woken, and when told in the morning. `infra/deploy/prometheus-rules.yaml` is written of it. */
import { both, by, type Expression, metric, over, promql, type Range, where } from './expression.ts';

export interface AlertRule {
  readonly alert: string;
  readonly expression: Expression;
  /** How long it must hold. @default at once */
  readonly for?: Range;
  readonly severity: 'page' | 'warn';
  /** What is wrong, and where to look. */
  readonly summary: string;
}

const INSTANCE = ['instance'] as const;
const PARTITION = ['instance', 'topic', 'partition'] as const;

export const ALERT_RULES: readonly AlertRule[] = [
  {
    alert: 'HstuDown',
    expression: where(metric('up', { job: 'hstu-streams' }), '==', 0),
    for: '30s',
    severity: 'page',
    summary: 'An instance does not answer: it is dead, frozen, or has FAILED and ended; its log has the code',
  },
  {
    alert: 'HstuAbsent',
    expression: { op: 'absent', of: metric('hstu_ready') },
    for: '30s',
    severity: 'page',
    summary: 'No instance at all is there to be asked',
  },
  {
    alert: 'HstuNotReady',
    expression: where(by('max', INSTANCE, metric('hstu_ready')), '==', 0),
    for: '30s',
    severity: 'page',
    summary: 'An instance does not do its work: /readyz says why',
  },
  {
    alert: 'HstuFailed',
    expression: where(by('max', INSTANCE, metric('hstu_lifecycle_state', { state: 'FAILED' })), '==', 1),
    severity: 'page',
    summary: 'An instance has met a fault that waiting does not mend (topics, rights, clock, state): its log has the code',
  },
  {
    alert: 'HstuRestarting',
    expression: where(over('changes', 'hstu_process_start_time_seconds', '10m'), '>', 2),
    severity: 'page',
    summary: 'An instance is started again and again: its log before each end has the code',
  },
  {
    alert: 'HstuPartitionStands',
    expression: where(by('max', PARTITION, metric('hstu_partition_standing_seconds')), '>', 10),
    severity: 'page',
    summary:
      'A partition cannot be fetched or read: /readyz has offset and code; hstu-streams skip passes over a batch that nobody can read',
  },
  {
    alert: 'HstuFetchFailing',
    expression: where(by('max', INSTANCE, metric('hstu_fetch_failing')), '>', 0),
    for: '30s',
    severity: 'page',
    summary: 'Fetches of some partitions fail: the log has the reason',
  },
  {
    alert: 'HstuBrokerAway',
    expression: where(by('max', INSTANCE, metric('hstu_brokers_away')), '>', 0),
    for: '30s',
    severity: 'page',
    summary: 'A broker that holds input partitions is not in the cluster',
  },
  {
    alert: 'HstuTopicUnavailable',
    expression: where(by('max', ['instance', 'topic', 'code'], metric('hstu_topic_unavailable')), '==', 1),
    for: '15s',
    severity: 'page',
    summary: 'An input topic is gone, has no leader, or may not be read',
  },
  {
    alert: 'HstuLagUnknown',
    expression: where(by('max', INSTANCE, metric('hstu_log_ends_age_seconds')), '>', 30),
    severity: 'page',
    summary: 'The brokers do not tell where the logs end: what lag says is old',
  },
  {
    alert: 'HstuStuck',
    expression: where(by('max', PARTITION, metric('hstu_position_stalled_seconds')), '>', 45),
    severity: 'page',
    summary: 'A partition has lag, and nothing of it is committed',
  },
  {
    alert: 'HstuPartitionsAdded',
    expression: where(by('count', INSTANCE, metric('hstu_unread_records')), '>', 0),
    for: '15s',
    severity: 'page',
    summary: 'Partitions were added to an input topic: nobody reads them (operate.md, Scale)',
  },
  {
    alert: 'HstuRecordsLost',
    expression: where(over('increase', 'hstu_records_lost_total', '1h'), '>', 0),
    severity: 'page',
    summary: 'Retention deleted records before they were read',
  },
  {
    alert: 'HstuDeadLetterStorm',
    expression: both(
      where(by('sum', INSTANCE, over('increase', 'hstu_dead_letters_total', '1m')), '>', {
        op: 'times',
        factor: 0.5,
        of: by('sum', INSTANCE, over('increase', 'hstu_batch_size_events_sum', '1m')),
      }),
      where(by('sum', INSTANCE, over('increase', 'hstu_dead_letters_total', '1m')), '>', 100),
    ),
    severity: 'page',
    summary: 'Half of the records cannot be used: a producer, a model or a clock is wrong; group hstu_dead_letters_total by code',
  },
  {
    alert: 'HstuRecovering',
    expression: where(by('sum', INSTANCE, over('increase', 'hstu_recoveries_total', '5m')), '>', 5),
    severity: 'page',
    summary: 'An instance goes on from its last commit again and again: group hstu_recoveries_total by code',
  },
  {
    alert: 'HstuEmbeddingsWrong',
    expression: where(over('increase', 'hstu_shadow_mismatches_total', '1h'), '>', 0),
    severity: 'page',
    summary: 'Published embeddings differ from full encodes: search the log for SHADOW_MISMATCH',
  },
  {
    alert: 'HstuSinkBehind',
    expression: where(metric('hstu_sink_clickhouse_up'), '==', 0),
    for: '30s',
    severity: 'page',
    summary: 'ClickHouse takes nothing: what is not stored waits in Kafka, for as long as retention keeps it',
  },
  {
    alert: 'HstuLagGrows',
    expression: both(
      where(by('sum', ['topic'], metric('hstu_consumer_lag_records')), '>', 10_000),
      where(by('sum', ['topic'], over('deriv', 'hstu_consumer_lag_records', '10m')), '>', 0),
    ),
    for: '15m',
    severity: 'warn',
    summary: 'More comes than is done: add instances',
  },
  {
    alert: 'HstuSlow',
    expression: where(
      { op: 'quantile', q: 0.99, of: by('sum', ['le'], over('rate', 'hstu_end_to_end_latency_seconds_bucket', '5m')) },
      '>',
      1,
    ),
    for: '10m',
    severity: 'warn',
    summary: 'One update in a hundred takes longer than a second',
  },
  {
    alert: 'HstuDeadLetters',
    expression: where(by('sum', INSTANCE, over('increase', 'hstu_dead_letters_total', '5m')), '>', {
      op: 'times',
      factor: 0.01,
      of: by('sum', INSTANCE, over('increase', 'hstu_batch_size_events_sum', '5m')),
    }),
    for: '10m',
    severity: 'warn',
    summary: 'Records that cannot be used; group by code and step',
  },
  {
    alert: 'HstuRecordsMisplaced',
    expression: where(by('sum', ['instance', 'topic'], over('increase', 'hstu_misplaced_records_total', '15m')), '>', 0),
    severity: 'warn',
    summary:
      "Records do not lie on their user's partition, so that a user may have several histories: the log has an example; kafka.misplaced",
  },
  {
    alert: 'HstuConnectionsCut',
    expression: where(by('sum', INSTANCE, over('increase', 'hstu_commit_retries_total', '15m')), '>', 20),
    severity: 'warn',
    summary: 'Commits are done again: connections to the brokers are cut',
  },
  {
    alert: 'HstuIndexRecall',
    expression: where(metric('hstu_index_recall'), '<', 0.9),
    for: '1h',
    severity: 'warn',
    summary: 'Lists miss a tenth of the best: scores.index: exact',
  },
  {
    alert: 'HstuWorkerDied',
    expression: where(over('increase', 'hstu_encoder_worker_restarts_total', '15m'), '>', 0),
    severity: 'warn',
    summary: 'An encoder thread died and was started anew: the log has the reason',
  },
];

/** A file of rules, as Prometheus reads it. */
export const alertRuleFile = (rules: readonly AlertRule[] = ALERT_RULES) => ({
  groups: [
    {
      name: 'hstu-streams',
      rules: rules.map(({ alert, expression, for: held, severity, summary }) => ({
        alert,
        expr: promql(expression),
        ...(held !== undefined && { for: held }),
        labels: { severity },
        annotations: { summary },
      })),
    },
  ],
});
