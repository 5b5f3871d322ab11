/** Producers of which one at a time may write: whoever opens one last fences all before. What they write is committed whole or not at all. */
import type { ICustomPartitioner, Kafka, Producer, Transaction } from 'kafkajs';
import type { KafkaConfig } from '../../schemas/config.ts';
import { kafkaError } from './kafka-errors.ts';

/**
 * The broker answers CONCURRENT_TRANSACTIONS while the markers of the transaction before are being written, a few ms:
 * kafkajs' own first wait of 300 ms would be the commit's latency.
 */
const TRANSACTION_RETRY = { initialRetryTime: 5, maxRetryTime: 1_000, multiplier: 1.6, retries: 22 } as const;

/** kafkajs' partitioner for messages that name their partition, as all of ours do. */
export const statedPartition: ICustomPartitioner =
  () =>
  ({ message }) =>
    message.partition!;

/** @param owner of what is written; its transactional id is `<applicationId>-<owner>` */
export function transactionalProducer(kafka: Kafka, config: KafkaConfig, owner: string | number): Producer {
  return kafka.producer({
    transactionalId: `${config.applicationId}-${owner}`,
    idempotent: true,
    maxInFlightRequests: 1,
    transactionTimeout: config.transactionTimeoutMs,
    allowAutoTopicCreation: false,
    createPartitioner: statedPartition,
    retry: TRANSACTION_RETRY,
  });
}

/**
 * Connects, and fences earlier owners; a transaction that they left open is aborted before this returns.
 *
 * @throws PipelineError as `kafkaError` says
 */
export async function fenceOthers(producer: Producer, what: string): Promise<void> {
  try {
    await producer.connect();
    // kafkajs asks for the transactional producer id, which is what fences, with the first transaction only.
    const transaction = await producer.transaction();
    await transaction.abort();
  } catch (thrown) {
    throw kafkaError(thrown, what);
  }
}

/**
 * Commits what `write` sends, and aborts it where that fails.
 *
 * @throws PipelineError as `kafkaError` says; the transaction may be committed or not: a new producer settles it
 */
export async function inTransaction<T>(
  producer: Producer,
  what: string,
  write: (transaction: Transaction) => Promise<T>,
): Promise<T> {
  let transaction: Transaction | undefined;
  try {
    transaction = await producer.transaction();
    const written = await write(transaction);
    await transaction.commit();
    return written;
  } catch (thrown) {
    if (transaction?.isActive() === true) await transaction.abort().catch(() => undefined);
    throw kafkaError(thrown, what);
  }
}

/**
 * Waits until none of the sends is under way any more, and then throws what the first to fail has thrown: a send that still runs would
 * connect again after its producer was closed, and could reach the broker after its transaction was ended, where it would begin another
 * that nobody ends.
 */
export async function allSettled(sends: readonly Promise<void>[]): Promise<void> {
  let first: { readonly error: unknown } | undefined;
  await Promise.all(
    sends.map((send) =>
      send.catch((error: unknown) => {
        first ??= { error };
      }),
    ),
  );
  if (first !== undefined) throw first.error;
}
