/** `hstu-streams produce --entities`: a catalogue's file into the entities topic. */
import { count, duration } from '../../infra/console/format.ts';
import { EntityProducer } from '../../infra/kafka/entity-producer.ts';
import { kafkaClient, requireLogin } from '../../infra/kafka/kafka-client.ts';
import { AvroCodec } from '../../schemas/avro/avro-codec.ts';
import type { EntityUpdate } from '../../schemas/catalogue.ts';
import { PipelineError } from '../../schemas/errors.ts';
import { readEntityUpdates } from '../entity-updates.ts';
import type { LiveConfig } from '../require-kafka.ts';
import { onInterrupt } from './interrupt.ts';

/** Updates sent together. */
const BATCH = 1_000;

/**
 * Faulty lines are left out, and told.
 *
 * @throws PipelineError `CONFIG_INVALID` where no topic is configured, `SOURCE_UNREADABLE`, Kafka's
 */
export async function produceEntities({ kafka }: LiveConfig, origin: string, file: string): Promise<void> {
  const topic = kafka.topics.entities;
  if (topic === undefined)
    throw new PipelineError('CONFIG_INVALID', `${origin}: kafka.topics.entities: missing; the name of the topic to write to`);
  await requireLogin(kafka);
  const producer = await EntityProducer.open(kafkaClient(kafka), kafka, topic, new AvroCodec());
  const interrupt = onInterrupt(() => undefined);
  const began = performance.now();
  let sent = 0;
  const refused: string[] = [];
  let batch: EntityUpdate[] = [];
  const flush = async () => {
    await producer.send(batch);
    sent += batch.length;
    batch = [];
  };
  try {
    for await (const { number, parsed } of readEntityUpdates(file)) {
      if (interrupt.signal.aborted) break;
      if (parsed.ok) batch.push(parsed.update);
      else refused.push(`${file}, line ${number}: ${parsed.message}`);
      if (batch.length === BATCH) await flush();
    }
    if (batch.length > 0) await flush();
  } finally {
    interrupt.dispose();
    await producer.close();
  }
  const rest = refused.length === 0 ? '' : `; ${count(refused.length)} faulty lines were left out (${refused[0]})`;
  console.log(`produced ${count(sent)} entities to ${topic} in ${duration(performance.now() - began)}${rest}`);
}
