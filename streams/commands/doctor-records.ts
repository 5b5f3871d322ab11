/** What `doctor` asks about the records of a deployment: are the newest of them what the configuration and the model say? */
import { count } from '../../infra/console/format.ts';
import { kafkaClient } from '../../infra/kafka/kafka-client.ts';
import { readRanges, resolveRanges } from '../../infra/kafka/range-reader.ts';
import { SchemaRegistry } from '../../infra/kafka/schema-registry.ts';
import { actionSourceOf, readTopics } from '../../infra/kafka/topics.ts';
import type { Bundle } from '../../models/hstu/bundle.ts';
import { rowNumbers } from '../../models/hstu/row-numbers.ts';
import { Tokenizer } from '../../models/hstu/tokenizer.ts';
import { schemaIdsOf } from '../../schemas/avro/wire-format.ts';
import { PipelineError } from '../../schemas/errors.ts';
import { judgePlaces, type Misplaced } from '../misplaced.ts';
import { deploymentDecoder } from '../replay/source.ts';
import type { LiveConfig } from '../require-kafka.ts';

/** Newest records of a partition that are looked at. */
const SAMPLE = 200;
const LIMITS = { maxBufferedBytes: 2 ** 20, faults: 'given' } as const;

/**
 * Decodes the newest records of the topic that actions come from, as `run` would.
 *
 * @returns what they are
 * @throws PipelineError `CONFIG_INVALID` where they do not fit: none can be used, users lie on several partitions, or no entity is in
 *   the model; Kafka's
 */
export async function checkRecords(config: LiveConfig, bundle: Bundle): Promise<string> {
  const kafka = kafkaClient(config.kafka);
  const topic = actionSourceOf(config.kafka);
  const { userActions, source } = config.kafka.topics;
  const registry = config.kafka.schemaRegistry && new SchemaRegistry(config.kafka.schemaRegistry);
  const partitions = (await readTopics(kafka, config.kafka)).find(({ name }) => name === userActions)?.partitions ?? 1;
  const misplaced: Misplaced[] = [];
  const decoder = judgePlaces(deploymentDecoder(config, registry), {
    kafka: { ...config.kafka, misplaced: 'warn' },
    partitions,
    onMisplaced: (one) => misplaced.push(one),
  });
  const tokenizer = new Tokenizer(bundle);
  const rows = rowNumbers(bundle.entities);
  const kinds = new Map<string, number>();
  const refused = new Map<string, { count: number; readonly example: string }>();
  const refuse = (code: string, example: string) => {
    const known = refused.get(code);
    if (known === undefined) refused.set(code, { count: 1, example });
    else known.count += 1;
  };
  let read = 0;
  let ignored = 0;
  let encoded = 0;
  let known = 0;
  const ranges = (await resolveRanges(kafka, topic, () => ({}))).map((range) => ({
    ...range,
    from: Math.max(range.from, range.to - SAMPLE),
  }));
  for await (const records of readRanges(kafka, ranges, LIMITS)) {
    await registry?.ensure(schemaIdsOf(records));
    for (const record of records) {
      read += 1;
      const result = decoder.decode({ ...record, position: { ...record.position, topic: userActions } });
      if (!result.ok) {
        refuse(result.code, result.message);
        continue;
      }
      if (result.partly !== undefined) refuse(result.partly.code, result.partly.message);
      if (result.ignored === true) ignored += 1;
      for (const { field, message } of result.invalid ?? []) refuse(`${field} left out`, message);
      for (const one of result.actions) {
        const { action, entity } = one;
        kinds.set(action, (kinds.get(action) ?? 0) + 1);
        const token = tokenizer.token(one);
        if (token.kind === 'refuse') refuse(token.code, token.message);
        if (!bundle.config.actions.encoded.includes(action)) continue;
        encoded += 1;
        if (rows.has(entity)) known += 1;
      }
    }
  }
  if (read === 0) return `${topic} is empty`;
  const listed = [...refused].map(([code, { count: times, example }]) => `${code} ${count(times)}, such as ${example}`);
  const seen = `the newest ${count(read)} of ${topic}`;
  const problems: string[] = [];
  const used = [...kinds.values()].reduce((sum, times) => sum + times, 0);
  if (used === 0 && ignored < read) problems.push(`none of ${seen} can be used: ${listed.join('; ')}`);
  if (misplaced.length > 0 && source === undefined) problems.push(misplacedText(misplaced, seen, partitions));
  if (encoded > 0 && known === 0) problems.push(`no entity of ${seen} is in the model: kafka.mapping.entity, and its namespace`);
  if (problems.length > 0) throw new PipelineError('CONFIG_INVALID', problems.join('\n'));
  const list = [...kinds].sort((a, b) => b[1] - a[1]).map(([kind, times]) => `${kind} ${count(times)}`);
  const share = encoded === 0 ? '' : `; ${Math.round((100 * known) / encoded)} % of their entities are in the model`;
  const letters = listed.length === 0 ? '' : `; dead letters: ${listed.join('; ')}`;
  return `${seen}: ${list.join(', ')}${ignored === 0 ? '' : `; ignored ${count(ignored)}`}${share}${letters}`;
}

function misplacedText(misplaced: readonly Misplaced[], seen: string, partitions: number): string {
  const { position, userId, belongs } = misplaced[0]!;
  return (
    `${count(misplaced.length)} of ${seen} do not lie on their user's partition, such as offset ${position.offset} of partition ` +
    `${position.partition}, of user '${userId}', who belongs on ${belongs} of ${partitions}: a user on several has a history on each`
  );
}
