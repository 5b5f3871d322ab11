/** What `doctor` asks about Kafka: the brokers and topics of the configuration; without one, whether `up` could start a broker. */
import { requireJava, requireMaven } from '../../infra/kafka/broker/java.ts';
import { isComplete, KAFKA_VERSION } from '../../infra/kafka/broker/libs.ts';
import { checkTopics } from '../../infra/kafka/check-topics.ts';
import { kafkaClient } from '../../infra/kafka/kafka-client.ts';
import { readTopics, withAdmin } from '../../infra/kafka/topics.ts';
import type { Config, KafkaConfig } from '../../schemas/config.ts';
import { messageOf } from '../../schemas/errors.ts';
import { loginName } from '../../schemas/kafka-sasl.ts';
import { JARS } from './local-kafka-options.ts';

/**
 * Without a `kafka` section nothing is wrong: then it only tells.
 *
 * @throws PipelineError with the code of what is wrong: no broker answers, a login or a certificate is refused
 */
export async function checkBrokers({ kafka }: Config): Promise<string> {
  if (kafka === undefined) return `not configured; ${await couldStart()}`;
  const { brokers } = await withAdmin(kafkaClient(kafka), `asking ${kafka.brokers.join(', ')}`, (admin) =>
    admin.describeCluster(),
  );
  const login = kafka.sasl === undefined ? '' : `, as ${loginName(kafka.sasl) ?? 'the token says'} (${kafka.sasl.mechanism})`;
  const addresses = brokers.map(({ host, port }) => `${host}:${port}`).join(', ');
  return `${brokers.length} broker(s) answer: ${addresses}${login}`;
}

/** @throws PipelineError `TOPICS_INVALID` listing what is missing or unfit */
export async function checkKafkaTopics(kafka: KafkaConfig): Promise<string> {
  const states = await readTopics(kafkaClient(kafka), kafka);
  const partitions = checkTopics(states, kafka);
  return `${states.length} topics of ${partitions} partition(s)`;
}

/** A hint, not a check: a broker here is a convenience. */
async function couldStart(): Promise<string> {
  try {
    const java = await requireJava();
    if (await isComplete(JARS)) return `\`hstu-streams up\` can start ${KAFKA_VERSION} here (Java ${java})`;
    return `\`hstu-streams up\` can fetch ${KAFKA_VERSION} and start it here (Java ${java}, Maven ${await requireMaven()})`;
  } catch (thrown) {
    return `\`hstu-streams up\` cannot start one here: ${messageOf(thrown)}`;
  }
}
