/** Whether a finished run may become live, and making it so: live goes on at the offsets where the run ended. */
import { isDeepStrictEqual } from 'node:util';
import { requireInactive } from '../../infra/kafka/change-topics.ts';
import { type KafkaClient, kafkaClient, requireLogin } from '../../infra/kafka/kafka-client.ts';
import { type Promoted, promoteRun, requireReachable } from '../../infra/kafka/promote-run.ts';
import { readRunRecords } from '../../infra/kafka/run-topics.ts';
import { SchemaRegistry } from '../../infra/kafka/schema-registry.ts';
import { withAdmin } from '../../infra/kafka/topics.ts';
import type { Bundle } from '../../models/hstu/bundle.ts';
import { AvroCodec } from '../../schemas/avro/avro-codec.ts';
import { fixedSchemas } from '../../schemas/avro/schemas.ts';
import { PipelineError } from '../../schemas/errors.ts';
import { encodePosition, POSITION_KEY } from '../../schemas/position-record.ts';
import { Fault } from '../../schemas/record-fields.ts';
import { type RunRange, type RunRecord, rangesOf } from '../../schemas/run-record.ts';
import type { StateSignature } from '../../schemas/state.ts';
import { versionOf } from '../../schemas/version.ts';
import type { LiveConfig } from '../require-kafka.ts';
import { settingsOf } from './settings-of.ts';

/** A run that has not moved for so long is not being written. */
const SILENT_MS = 60_000;

export interface PromotionPlan {
  readonly run: RunRecord;
  /** Where live goes on: `to` of each input partition. */
  readonly cut: readonly RunRange[];
}

/**
 * What a promotion would do.
 *
 * @throws PipelineError `CONFIG_INVALID` naming every reason why the run does not fit this deployment
 */
export async function planPromotion(config: LiveConfig, bundle: Bundle, runId: string): Promise<PromotionPlan> {
  await requireLogin(config.kafka);
  const kafka = kafkaClient(config.kafka);
  const runs = await readRunRecords(kafka, config.kafka);
  const run = runs.find((one) => one.runId === runId);
  if (run === undefined)
    throw new PipelineError(
      'CONFIG_INVALID',
      `run ${runId}: not among the runs in Kafka (${runs.map((one) => one.runId).join(', ') || 'there are none'}); only a run of --to kafka can be promoted`,
    );
  const cut = rangesOf(run);
  const problems = unfit(run, config, bundle, runs, Date.now());
  if (problems.length > 0)
    throw new PipelineError('CONFIG_INVALID', [`run ${runId} cannot be promoted:`, ...problems].join('\n  '));
  await requireReachable(kafka, cut);
  await requireStopped(kafka, config);
  return { run, cut };
}

/** Carries a plan out. Done again after it was cut short, it finishes. */
export async function executePromotion(
  config: LiveConfig,
  { run, cut }: PromotionPlan,
  onPartition?: (partition: number, counts: Promoted) => void,
): Promise<Promoted> {
  const kafka = kafkaClient(config.kafka);
  await requireStopped(kafka, config);
  const signature = run.facts['signature'] as StateSignature;
  const codec = await codecOf(config);
  return promoteRun(kafka, config.kafka, {
    runId: run.runId,
    cut,
    position: (at) => ({ key: POSITION_KEY, value: encodePosition({ ...at, signature }) }),
    current: (name, value, epoch) => {
      if (epoch === 0) return value;
      const record = codec.decode(name, value);
      if (record instanceof Fault) throw new PipelineError('SOURCE_UNREADABLE', `run ${run.runId}: ${record.message}`);
      return codec.encode(name, { ...record, version: versionOf(record.version, epoch) } as never);
    },
    ...(onPartition !== undefined && { onPartition }),
  });
}

/** Reads the run's outputs, and writes the deployment's. */
async function codecOf({ kafka }: LiveConfig): Promise<AvroCodec> {
  const { schemaRegistry, topics, maxRecordBytes } = kafka;
  const registry = schemaRegistry && new SchemaRegistry(schemaRegistry);
  await registry?.register({ UserEmbedding: topics.userEmbeddings, CandidateScores: topics.candidateScores });
  // Outputs are larger than the records that they are of.
  return new AvroCodec({ schemas: registry ?? fixedSchemas, maxRecordBytes: 16 * maxRecordBytes });
}

const requireStopped = (kafka: KafkaClient, { kafka: { applicationId } }: LiveConfig): Promise<void> =>
  withAdmin(kafka, 'looking for running instances', (admin) => requireInactive(admin, applicationId));

/** Why a run does not fit, a line each. */
export function unfit(
  run: RunRecord,
  config: LiveConfig,
  bundle: Pick<Bundle, 'digest'>,
  all: readonly RunRecord[],
  nowMs: number,
): string[] {
  const problems: string[] = [];
  const { facts } = run;
  const ranges = rangesOf(run);
  const { userActions, erasures } = config.kafka.topics;
  if (!run.finished)
    problems.push(`it is not finished: ${run.position} of ${run.total ?? '?'} events; the same replay goes on with it`);
  if (facts['mode'] === 'as-of') problems.push('it is of --mode as-of, and holds no state; make one of --mode state');
  if (ranges.length === 0 && facts['mode'] !== undefined)
    problems.push('it is not made of Kafka: there are no offsets at which live could go on');
  else if (ranges.some(({ topic }) => topic !== userActions && topic !== erasures))
    problems.push(
      `it is made of ${[...new Set(ranges.map(({ topic }) => topic))].join(', ')}, live of ${userActions}, ${erasures}`,
    );
  // Of rows that were read before the log, what lies before it is theirs.
  for (const { topic, partition, from } of ranges)
    if (from > 0 && topic === userActions && facts['files'] === undefined)
      problems.push(`${topic}/${partition} begins at offset ${from}: what users did before it would be lost to live`);
  if (facts['modelDigest'] !== undefined && facts['modelDigest'] !== bundle.digest)
    problems.push(
      `its model is ${String(facts['modelDigest']).slice(0, 16)}, the configuration's bundle is ${bundle.digest.slice(0, 16)}: live would go on with another`,
    );
  // By way of JSON, as it was recorded.
  if (facts['settings'] !== undefined && !isDeepStrictEqual(facts['settings'], JSON.parse(JSON.stringify(settingsOf(config)))))
    problems.push(`it was made with other settings of sequence or time: ${JSON.stringify(facts['settings'])}`);
  for (const other of all)
    if (
      other.runId !== run.runId &&
      !other.finished &&
      nowMs - other.updatedAtMs < SILENT_MS &&
      overlaps(ranges, rangesOf(other))
    )
      problems.push(`run ${other.runId} of the same range is being written: wait for it, or stop it`);
  return problems;
}

const overlaps = (a: readonly RunRange[], b: readonly RunRange[]): boolean =>
  a.some((one) =>
    b.some(
      (other) => one.topic === other.topic && one.partition === other.partition && one.from < other.to && other.from < one.to,
    ),
  );
