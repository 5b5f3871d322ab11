/** Opens the place of a run by its name. */
import type { Config } from '../../schemas/config.ts';
import { requireKafka } from '../require-kafka.ts';
import type { BackfillOutput, RunPlace } from './backfill-output.ts';
import { clickhouseOutput } from './clickhouse-output.ts';
import { fileOutput } from './file-output.ts';
import { kafkaOutput } from './kafka-output.ts';

export const PLACES = ['clickhouse', 'kafka', 'parquet', 'jsonl'] as const satisfies readonly RunPlace[];

/** @param place @default backfill.to */
export function openOutput(config: Config, place: RunPlace = config.backfill.to): Promise<BackfillOutput> {
  switch (place) {
    case 'clickhouse':
      return clickhouseOutput(config.clickhouse);
    case 'kafka':
      return kafkaOutput(requireKafka(config, '--to kafka'));
    default:
      return fileOutput(config, place);
  }
}
