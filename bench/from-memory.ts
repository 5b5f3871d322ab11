/** The live operators without a broker: the same bytes, decoder, operators, encoder and batch sizes; nothing is committed. */
import { lastValueFrom, merge } from 'rxjs';
import { partitionOf } from '../infra/kafka/keyed-producer.ts';
import type { HstuEncoder } from '../models/encoder.ts';
import type { Bundle } from '../models/hstu/bundle.ts';
import { InMemorySequenceStore } from '../operators/index.ts';
import type { SourceRecord, UserAction } from '../schemas/action.ts';
import { AvroCodec } from '../schemas/avro/avro-codec.ts';
import { createRecordDecoder } from '../schemas/avro/record-decoder.ts';
import type { Config } from '../schemas/config.ts';
import { batchSource } from '../streams/batch-source.ts';
import { pipeline } from '../streams/pipeline.ts';
import { pipelineModel } from '../streams/pipeline-model.ts';

export interface FromMemory {
  readonly bundle: Bundle;
  /** With a `kafka` section. */
  readonly config: Config;
  /** By partition. */
  readonly records: readonly (readonly SourceRecord[])[];
  readonly encoder: HstuEncoder;
}

/** The actions as a consumer would hand them on: encoded, by partition, with offsets. */
export function recordsOf(actions: readonly UserAction[], topic: string, partitions: number): SourceRecord[][] {
  const codec = new AvroCodec();
  const byPartition = Array.from({ length: partitions }, (): SourceRecord[] => []);
  const known = new Map<string, number>();
  for (const action of actions) {
    const partition = known.get(action.userId) ?? partitionOf(action.userId, partitions);
    known.set(action.userId, partition);
    const records = byPartition[partition]!;
    records.push({
      position: { topic, partition, offset: records.length },
      value: codec.encode('UserAction', action),
      key: Buffer.from(action.userId),
      timestampMs: Date.now(),
    });
  }
  return byPartition;
}

/** From the first record to the last embedding. */
export async function fromMemory({ bundle, config, records, encoder }: FromMemory): Promise<void> {
  const { batchEvents, maxInFlightBatches, topics } = config.kafka!;
  const topic = topics.userActions;
  const stores = records.map(() => new InMemorySequenceStore());
  const batches$ = records.map((ofPartition, partition) =>
    batchSource({ topic, partition, from: 0, records: ofPartition, batchEvents, maxInFlightBatches, now: Date.now }),
  );
  await lastValueFrom(
    merge(...batches$).pipe(
      pipeline({
        settings: config,
        model: pipelineModel(bundle),
        decoder: createRecordDecoder({ ...config.kafka!, ...config.time }),
        store: ({ partition }) => stores[partition]!,
        encoder,
        // As live.
        ranks: topics.actionOutcomes !== undefined,
        publisher: { publish: () => Promise.resolve() },
        committer: { commit: () => Promise.resolve() },
        now: Date.now,
      }),
    ),
  );
}
