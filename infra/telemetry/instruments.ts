/** Every metric by name, in one list: unit in the name, help text, labels of bounded cardinality. `docs/howto/observe.md` explains them. */
import { Counter, Gauge, Histogram, type Registry } from 'prom-client';
import { watchInstruments } from './watch-metrics.ts';

/** A batch's step takes from tens of microseconds (decode) to seconds (a cold start's prefill). */
const STEP_SECONDS = [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30];
/** From a record's timestamp on: a consumer that lags is minutes behind. */
const END_TO_END_SECONDS = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800, 3600];
const RUN_USERS = [1, 2, 4, 8, 16, 32, 64, 128, 256, 1024];
const BATCH_EVENTS = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 4096, 16_384];

const PARTITION = ['topic', 'partition'] as const;
/** Of a partition number of all input topics together: state and batches in flight are one. */
const NUMBER = ['partition'] as const;

export type Instruments = ReturnType<typeof instruments>;

export function instruments(registry: Registry) {
  const registers = [registry];
  const counter = <L extends string = never>(name: string, help: string, labelNames: readonly L[] = []) =>
    new Counter<L>({ name, help, labelNames, registers });
  const gauge = <L extends string = never>(name: string, help: string, labelNames: readonly L[] = []) =>
    new Gauge<L>({ name, help, labelNames, registers });
  const histogram = <L extends string = never>(name: string, help: string, buckets: number[], labelNames: readonly L[] = []) =>
    new Histogram<L>({ name, help, buckets, labelNames, registers });

  return {
    watch: watchInstruments(registry),
    buildInfo: gauge('hstu_build_info', 'Always 1; what runs, in the labels.', ['version', 'model_digest', 'delivery']),
    state: gauge('hstu_lifecycle_state', '1 for the state the stream is in, 0 for the others.', ['state']),

    // What comes in, and what is held.
    lag: gauge('hstu_consumer_lag_records', 'Records of a partition that are written and not yet committed.', PARTITION),
    buffered: gauge('hstu_buffered_bytes', 'Bytes fetched and not yet processed.', PARTITION),
    bufferedBound: gauge('hstu_buffered_limit_bytes', 'Bytes a partition above which fetching pauses.'),
    inFlight: gauge('hstu_in_flight_batches', 'Batches between being read and being committed.', NUMBER),
    inFlightBound: gauge('hstu_in_flight_limit_batches', 'Batches a partition that may be in flight.'),
    assigned: gauge('hstu_partitions_assigned', 'Partitions that this instance processes.'),
    ignored: counter('hstu_ignored_records_total', 'Records of kinds that the mapping ignores.'),
    valuesInvalid: counter(
      'hstu_invalid_values_total',
      'Optional values (value, context) that could not be used and were left out, by field.',
      ['field'],
    ),
    misplaced: counter('hstu_misplaced_records_total', "Records that do not lie on their user's partition, by topic.", ['topic']),
    lost: counter('hstu_records_lost_total', 'Records that retention deleted before they were read.'),
    rebalances: counter('hstu_rebalances_total', 'Times that the consumer group has changed assignments.'),

    // The work.
    batchEvents: histogram('hstu_batch_size_events', 'Records a batch.', BATCH_EVENTS),
    stepSeconds: histogram('hstu_step_duration_seconds', 'From entering a step to leaving it, waiting included.', STEP_SECONDS, [
      'step',
    ]),
    endToEnd: histogram('hstu_end_to_end_latency_seconds', 'From the timestamp of a record to its being published.', [
      ...END_TO_END_SECONDS,
    ]),
    events: counter('hstu_events_total', 'Events by kind of action and what became of them.', ['action', 'disposition']),
    rejects: counter('hstu_rejected_actions_total', 'Actions that were decoded and could not be used, by kind.', [
      'action',
      'code',
    ]),
    unknownEntities: counter(
      'hstu_unknown_entities_total',
      'Events of entities that the model does not have, kept without a token (unknownEntity: skip).',
      ['action'],
    ),
    unknownFeatures: counter('hstu_unknown_side_features_total', 'Values of side features that the model does not have.', [
      'feature',
    ]),
    deadLetters: counter('hstu_dead_letters_total', 'Records that could not be used.', ['code', 'step']),
    erasures: counter('hstu_erasures_total', 'Users erased.'),
    tokens: counter('hstu_tokens_total', 'Events that became tokens of a sequence.'),
    rows: counter('hstu_rows_computed_total', 'Rows the encoder computed; by hstu_tokens_total it is the work an event takes.'),
    outcomes: counter('hstu_cache_outcomes_total', 'Published embeddings by what the KV cache held for them.', ['outcome']),
    embeddings: counter('hstu_embeddings_published_total', 'Embeddings published.'),
    scores: counter('hstu_scores_published_total', 'Candidate lists published, with embeddings and as answers.'),

    // Requests for candidates.
    requests: counter('hstu_candidate_requests_total', 'Requests for candidates by what became of them.', ['disposition']),
    candidates: counter('hstu_candidates_answered_total', 'Candidates in the answers.'),
    leftOut: counter('hstu_candidates_left_out_total', 'Candidates asked for and not scored.', ['reason']),

    // The encoder, asked at every scrape.
    kvUsed: gauge('hstu_kv_cache_used_bytes', 'KV cache in use.'),
    kvBudget: gauge('hstu_kv_cache_budget_bytes', 'KV cache allowed, encoder.kvBudgetBytes.'),
    kvUsers: gauge('hstu_kv_cache_users', 'Users with an entry in the KV cache.'),
    evictions: counter('hstu_kv_cache_evictions_total', 'Users dropped from the KV cache for room.'),
    diskUsed: gauge('hstu_kv_disk_used_bytes', 'KV cache on disk, encoder.disk.'),
    diskUsers: gauge('hstu_kv_disk_users', 'Users with a copy on disk.'),
    diskRecords: counter('hstu_kv_disk_records_total', 'Users written to and read back from the KV cache on disk.', ['event']),
    restarts: counter('hstu_encoder_worker_restarts_total', 'Encoder threads that died and were started anew.'),
    waitingUsers: gauge('hstu_encoder_waiting_users', 'Users whose requests wait for an encoder thread.', ['class']),
    refused: counter('hstu_encoder_refused_total', 'Requests that the encoder turned away.', ['class', 'reason']),
    waitSeconds: histogram('hstu_encoder_wait_seconds', 'How long a call waited for an encoder thread.', STEP_SECONDS, ['class']),
    runUsers: histogram('hstu_encoder_run_users', 'Users that an encoder thread was given at once.', RUN_USERS, ['class']),

    indexRecall: gauge('hstu_index_recall', 'Share of the exact lists that the index of the catalogue found, of a sample.', [
      'index',
    ]),
    indexLists: counter('hstu_index_lists_total', 'Lists of a catalogue with an index, by what gave them.', ['by']),

    // The catalogue that the entities topic makes.
    catalogue: gauge('hstu_catalogue_entities', 'Entities by their state in the catalogue that is served.', ['state']),
    catalogueUpdates: counter('hstu_catalogue_updates_total', 'Times that another catalogue was served.'),
    catalogueRejects: counter('hstu_catalogue_rejects_total', 'Records of the entities topic that changed nothing.', ['reason']),
    catalogueLag: gauge('hstu_catalogue_lag_records', 'Records of the entities topic that are written and not read.', NUMBER),

    // The model, and its changes.
    model: gauge('hstu_model_info', 'Always 1; the model that is served, and the one that is loaded beside it.', [
      'digest',
      'name',
      'role',
    ]),
    modelChanges: counter('hstu_model_changes_total', 'Changes of the model by how they ended.', ['outcome']),
    prefillDone: gauge('hstu_model_prefill_done_users', 'Users of the old cache that the next model has been through.'),
    prefillTotal: gauge('hstu_model_prefill_total_users', 'Users of the old cache when the prefill for the next model began.'),
    prefillRate: gauge('hstu_model_prefill_users_per_second', 'Users a second that the next model encodes in the background.'),
    modelSwitch: gauge('hstu_model_switch_seconds', 'How long nothing was read at the newest switch of the model.'),

    // Commits and state.
    commits: counter('hstu_commits_total', 'Batches committed.'),
    commitSeconds: histogram('hstu_commit_duration_seconds', 'One commit: the transaction, or the offsets.', STEP_SECONDS),
    aborted: counter('hstu_transactions_aborted_total', 'Transactions rolled back.'),
    commitRetries: counter('hstu_commit_retries_total', 'Commits whose answer did not come, done again by another producer.'),
    recoveries: counter('hstu_recoveries_total', 'Faults after which the stream went on from its last commit.', ['code']),
    committedOffset: gauge('hstu_committed_offset', 'Offset at which a restart of the partition begins.', PARTITION),
    restoring: gauge('hstu_restoring', '1 while the state of a partition is rebuilt from the changelog, else 0.', NUMBER),
    restored: gauge('hstu_restore_done_records', 'Changelog records read in the newest restore of a partition.', NUMBER),
    restoreTotal: gauge(
      'hstu_restore_total_records',
      'Changelog records to read in the newest restore of a partition.',
      PARTITION,
    ),
    storeBytes: gauge('hstu_store_bytes', 'Size of the local store on disk.'),
    hotUsers: gauge('hstu_hot_users', 'Users whose sequences are held in memory.'),

    // Exactness.
    shadowChecks: counter('hstu_shadow_checks_total', 'Published embeddings that were encoded anew in full and compared.'),
    shadowMismatches: counter('hstu_shadow_mismatches_total', 'Shadow checks that found a deviation above the tolerance.'),
    shadowDropped: counter('hstu_shadow_dropped_total', 'Samples not checked: the queue was full, or the encode failed.'),
    shadowMaxDelta: gauge('hstu_shadow_max_abs_delta', 'Largest absolute deviation any shadow check has found since the start.'),
  };
}
