/** What a backfill's run gives to its topics, in transactions that carry how far the run has come. */
import type { Kafka, Producer, Transaction } from 'kafkajs';
import type { KafkaConfig } from '../../schemas/config.ts';
import { PipelineError } from '../../schemas/errors.ts';
import type { RunRecord } from '../../schemas/run-record.ts';
import { compressionType } from './compression.ts';
import { chunks, type OutgoingRecords } from './partition-producer.ts';
import { runTopicsOf } from './run-topics.ts';
import { fenceOthers, inTransaction, transactionalProducer } from './transactions.ts';

/** By partition. */
export type PartitionedRecords = ReadonlyMap<number, OutgoingRecords>;

/**
 * One a run: its transactional id is the run's, so that whoever opens it fences who wrote the run before, and ends what was left
 * open. Commits are in the order of the calls.
 */
export class RunProducer {
  readonly #config: KafkaConfig;
  readonly #runId: string;
  readonly #producer: Producer;
  #queue: Promise<void> = Promise.resolve();

  constructor(kafka: Kafka, config: KafkaConfig, runId: string) {
    this.#config = config;
    this.#runId = runId;
    this.#producer = transactionalProducer(kafka, config, runId);
  }

  open(): Promise<void> {
    return fenceOthers(this.#producer, `becoming the writer of run ${this.#runId}`);
  }

  /** @throws PipelineError; after one, every later commit fails likewise */
  commit(records: PartitionedRecords, run: RunRecord): Promise<void> {
    this.#queue = this.#queue.then(() => this.#commit(records, run));
    return this.#queue;
  }

  async close(): Promise<void> {
    await this.#queue.catch(() => undefined);
    await this.#producer.disconnect().catch(() => undefined);
  }

  async #commit(partitions: PartitionedRecords, run: RunRecord): Promise<void> {
    try {
      await inTransaction(this.#producer, `committing run ${run.runId}`, async (transaction) => {
        // One `send` a topic partition, as in `PartitionProducer`.
        for (const [partition, records] of partitions)
          for (const [topic, list] of records)
            for (const messages of chunks(list, partition)) await this.#send(transaction, topic, messages);
        const value = Buffer.from(JSON.stringify(run));
        await this.#send(transaction, runTopicsOf(this.#config, run.runId).run, [{ key: run.runId, value, partition: 0 }]);
      });
    } catch (error) {
      if (!(error instanceof PipelineError) || error.code !== 'PRODUCER_FENCED') throw error;
      throw new PipelineError('PRODUCER_FENCED', `run ${run.runId}: another process has begun to write it; this one stops`, {
        cause: error,
      });
    }
  }

  async #send(transaction: Transaction, topic: string, messages: Parameters<Transaction['send']>[0]['messages']): Promise<void> {
    await transaction.send({ topic, acks: -1, compression: compressionType(this.#config.compression), messages });
  }
}
