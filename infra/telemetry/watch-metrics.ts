/** What stream and sink measure alike: readiness, and their way to the brokers. */
import { Gauge, type Registry } from 'prom-client';

const PARTITION = ['topic', 'partition'] as const;

interface Partition {
  readonly topic: string;
  readonly partition: number;
}

export interface WatchFacts {
  readonly ready: boolean;
  readonly endsAgeSeconds: number;
  readonly brokersAway: number;
  readonly progress: readonly (Partition & {
    readonly lag: number;
    readonly stalledSeconds: number;
    readonly oldestSeconds: number;
  })[];
  readonly standing: readonly (Partition & { readonly code: string; readonly forMs: number })[];
  readonly unread: readonly (Partition & { readonly records: number })[];
  readonly unavailable: readonly { readonly topic: string; readonly code: string }[];
}

export type WatchInstruments = ReturnType<typeof watchInstruments>;

export function watchInstruments(registry: Registry) {
  const gauge = <L extends string = never>(name: string, help: string, labelNames: readonly L[] = []) =>
    new Gauge<L>({ name, help, labelNames: [...labelNames], registers: [registry] });
  return {
    ready: gauge('hstu_ready', '1 while /readyz says yes, else 0.'),
    endsAge: gauge('hstu_log_ends_age_seconds', 'Age of the newest answer to where the logs end: lag is as old as that.'),
    brokersAway: gauge('hstu_brokers_away', 'Brokers that hold partitions of the input and are not in the cluster.'),
    unavailable: gauge('hstu_topic_unavailable', '1 for an input topic whose ends the brokers do not tell.', ['topic', 'code']),
    fetchFailing: gauge('hstu_fetch_failing', 'Partitions of this instance whose fetches fail.'),
    standing: gauge('hstu_partition_standing_seconds', 'How long a partition cannot be fetched or read.', [...PARTITION, 'code']),
    stalled: gauge('hstu_position_stalled_seconds', 'How long nothing was committed of a partition that has lag.', PARTITION),
    oldest: gauge(
      'hstu_oldest_waiting_seconds',
      'Age of the oldest record of a partition that is not done; 0 without lag.',
      PARTITION,
    ),
    unread: gauge('hstu_unread_records', 'Records of partitions that were added and that nobody reads.', PARTITION),
  };
}

/** Sets all of them: what is not said any more has no series any more. */
export function setWatch(i: WatchInstruments, facts: WatchFacts): void {
  for (const gauge of [i.unavailable, i.standing, i.stalled, i.oldest, i.unread]) gauge.reset();
  i.ready.set(facts.ready ? 1 : 0);
  i.endsAge.set(facts.endsAgeSeconds);
  i.brokersAway.set(facts.brokersAway);
  i.fetchFailing.set(facts.standing.length);
  for (const { topic, code } of facts.unavailable) i.unavailable.set({ topic, code }, 1);
  for (const { topic, partition, code, forMs } of facts.standing) i.standing.set({ topic, partition, code }, forMs / 1000);
  for (const { topic, partition, stalledSeconds, oldestSeconds } of facts.progress) {
    i.stalled.set({ topic, partition }, stalledSeconds);
    i.oldest.set({ topic, partition }, oldestSeconds);
  }
  for (const { topic, partition, records } of facts.unread) i.unread.set({ topic, partition }, records);
}
