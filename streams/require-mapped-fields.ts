/** A mapping that names fields which the topic's Avro schema does not have is found at the start, where the schema is known. */
import { actionSourceOf } from '../infra/kafka/topics.ts';
import { fieldsNotIn } from '../schemas/avro/mapped-fields.ts';
import { SCHEMA_TEXTS, type WriterSchema } from '../schemas/avro/schemas.ts';
import type { KafkaConfig } from '../schemas/config.ts';
import { PipelineError } from '../schemas/errors.ts';

/** What is asked of a schema registry. */
interface Subjects {
  latest(subject: string): Promise<WriterSchema | undefined>;
}

/**
 * Checks a mapping against the newest schema of the subject `<topic of the actions>-value`, or, without a registry, against our own: nothing
 * else is read then. JSON has no schema; nor has a subject that nobody has written to yet.
 *
 * @throws PipelineError `CONFIG_INVALID` that lists every path that the schema lacks; those of the registry's answers
 */
export async function requireMappedFields(
  { mapping, valueFormat, topics }: Pick<KafkaConfig, 'mapping' | 'valueFormat' | 'topics'>,
  registry: Subjects | undefined,
): Promise<void> {
  if (mapping === undefined || valueFormat !== 'avro') return;
  const subject = `${actionSourceOf({ topics })}-value`;
  const schema = registry === undefined ? { text: SCHEMA_TEXTS.UserAction } : await registry.latest(subject);
  // The paths of other schemas are not checked.
  if (schema === undefined || (schema.schemaType ?? 'AVRO') !== 'AVRO') return;
  const problems = fieldsNotIn(schema, mapping);
  if (problems.length === 0) return;
  const where = registry === undefined ? 'the schema of UserAction' : `the newest schema of subject '${subject}'`;
  throw new PipelineError(
    'CONFIG_INVALID',
    [`kafka.mapping does not fit ${where}: ${problems.length} problem(s)`, ...problems.map((problem) => `kafka.${problem}`)].join(
      '\n  ',
    ),
  );
}
