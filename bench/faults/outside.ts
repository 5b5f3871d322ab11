/** What the world outside does to a deployment, at length; Java's consumer is the oracle. `npm run faults -- outside` shows all of it. */
import type { LocalKafka } from '../../infra/kafka/broker/local-kafka.ts';
import * as batches from '../../test/support/promises/outside/batches.ts';
import { aClockThatIsOffIsNamed } from '../../test/support/promises/outside/clock.ts';
import * as network from '../../test/support/promises/outside/network.ts';
import * as topics from '../../test/support/promises/outside/topics.ts';
import { anEarlierStateIsGoneOnWith, earlierBundle, earlierSettings } from '../../test/support/promises/outside/upgrade.ts';
import type { Say } from '../../test/support/promises/promise.ts';
import { topicsWithOutcomes } from '../../test/support/topics-named.ts';
import type { Promised } from './promised.ts';

const brokerOf = (cluster: LocalKafka): string => cluster.bootstrapServers[0]!;
const uncompressed = { kafka: { compression: 'none' } };

export const outside = (say: Say): Readonly<Record<string, Promised>> => {
  const at = (cluster: LocalKafka) => ({ broker: brokerOf(cluster), say });
  const promises: Readonly<Record<string, Omit<Promised, 'readByJava'>>> = {
    'what-a-java-producer-packs-is-processed': {
      settings: (name) => ({
        kafka: { valueFormat: 'json', partitions: 1, topics: topicsWithOutcomes(name) },
        publish: 'every-batch',
      }),
      show: (world, cluster) =>
        batches.whatAJavaProducerPacksIsProcessed(world, { ...at(cluster), records: 700_000, batchBytes: 2_000_000 }),
    },
    'a-batch-of-many-records-is-processed': {
      settings: { publish: 'every-batch' },
      show: (world) => batches.aBatchOfManyRecordsIsProcessed(world, { records: 150_000 }),
    },
    'a-compressed-bomb-is-one-dead-letter': {
      show: (world) => batches.aCompressedBombIsOneDeadLetter(world, { bytes: 400_000_000, limitBytes: 1.5 * 2 ** 30, say }),
    },
    'a-cut-network-costs-retries-only': {
      show: (world, cluster) =>
        network.aCutNetworkCostsRetriesOnly(world, { ...at(cluster), share: 0.05, events: 30_000, starts: 10, minShare: 0.5 }),
    },
    'a-slow-network-is-only-slow': {
      show: (world, cluster) => network.aSlowNetworkIsOnlySlow(world, { ...at(cluster), delayMs: 500, events: 1_000 }),
    },
    'a-flipped-bit-is-never-committed': {
      settings: uncompressed,
      show: (world, cluster) => network.aFlippedBitIsNeverCommitted(world, at(cluster)),
    },
    'a-late-end-of-a-transaction-ends-no-other': {
      settings: { kafka: { partitions: 1 } },
      show: (world, cluster) => network.aLateEndOfATransactionEndsNoOther(world, { ...at(cluster), seconds: 20, holdMs: 6_000 }),
    },
    'a-broker-that-is-away-is-said': {
      show: (world, cluster) => network.aBrokerThatIsAwayIsSaid(world, at(cluster)),
    },
    'a-topic-made-anew-is-refused': { show: (world) => topics.aTopicMadeAnewIsRefused(world, { running: false }) },
    'a-topic-made-anew-under-an-instance-is-refused': {
      show: (world) => topics.aTopicMadeAnewIsRefused(world, { running: true }),
    },
    'a-topic-that-grew-is-refused': { show: topics.aTopicThatGrewIsRefused },
    'a-changelog-without-its-head-is-refused': { show: topics.aChangelogWithoutItsHeadIsRefused },
    'a-clock-that-is-behind-is-named': { show: (world) => aClockThatIsOffIsNamed(world, { hours: -25 }) },
    'a-clock-that-is-ahead-is-named': { show: (world) => aClockThatIsOffIsNamed(world, { hours: 25 }) },
    'an-earlier-state-is-gone-on-with': {
      settings: earlierSettings,
      bundle: earlierBundle,
      show: (world) => anEarlierStateIsGoneOnWith(world, { withStore: true }),
    },
    'an-earlier-changelog-is-gone-on-with': {
      settings: earlierSettings,
      bundle: earlierBundle,
      show: (world) => anEarlierStateIsGoneOnWith(world, { withStore: false }),
    },
  };
  return Object.fromEntries(Object.entries(promises).map(([name, promised]) => [name, { ...promised, readByJava: true }]));
};
