/** What an instance knows of its own trouble, beside its state: is it ready, how far is it behind, where does it stand still. */
import type { LogEnds } from '../infra/kafka/log-ends.ts';
import type { Standing } from '../infra/kafka/partition-buffer.ts';
import type { ErrorCode } from '../schemas/errors.ts';

/** How far a partition is done. */
export interface Position {
  readonly topic: string;
  readonly partition: number;
  /** Next offset to be committed. */
  readonly nextOffset: number;
  /** Timestamp of the first record that was fetched and waits, ms since the epoch; undefined where there is none. */
  readonly waitingMs: number | undefined;
}

export interface WatchParts {
  readonly ends: Pick<LogEnds, 'endsOf' | 'faults' | 'ageMs' | 'brokersAway'>;
  /** What this instance reads, partitions of others included. */
  readonly topics: readonly string[];
  /** Partitions that the deployment has of each of `topics`: more of them are read by nobody. */
  readonly partitions: number;
  /** Of what this instance has taken over. */
  readonly positions: () => readonly Position[];
  /** Partitions that are its own, taken over or not; undefined while the group rebalances. */
  readonly owned: () => readonly number[] | undefined;
  readonly standing: () => readonly Standing[];
  /** Clock that never goes back, ms. @default performance.now */
  readonly nowMs?: () => number;
  /** Clock, ms since the epoch. @default Date.now */
  readonly now?: () => number;
}

export interface PartitionProgress {
  readonly topic: string;
  readonly partition: number;
  /** Written and not committed as done. */
  readonly lag: number;
  /** For how long nothing was committed although there is lag, s. */
  readonly stalledSeconds: number;
  /** Age of the oldest record that is not done: by its timestamp where it is fetched, else as long as the position stands. 0 without lag. */
  readonly oldestSeconds: number;
}

/** Why an instance is not ready although it runs. */
export type Unready = {
  readonly code: ErrorCode;
  readonly message: string;
  /** ms since the epoch. */
  readonly sinceMs: number;
  readonly topic?: string;
  readonly partition?: number;
  readonly offset?: number;
};

export interface WatchReport {
  readonly endsAgeSeconds: number;
  readonly brokersAway: number;
  readonly progress: readonly PartitionProgress[];
  /** With how long they have stood. */
  readonly standing: readonly (Standing & { readonly forMs: number })[];
  /** Partitions that were added, and their records, which nobody reads. */
  readonly unread: readonly { readonly topic: string; readonly partition: number; readonly records: number }[];
  readonly unavailable: readonly { readonly topic: string; readonly code: ErrorCode }[];
}

/** Of two works of one instance. */
export function joined(one: WatchReport, other: WatchReport | undefined): WatchReport {
  if (other === undefined) return one;
  return {
    endsAgeSeconds: Math.max(one.endsAgeSeconds, other.endsAgeSeconds),
    brokersAway: Math.max(one.brokersAway, other.brokersAway),
    progress: [...one.progress, ...other.progress],
    standing: [...one.standing, ...other.standing],
    unread: [...one.unread, ...other.unread],
    unavailable: [...one.unavailable, ...other.unavailable],
  };
}

/** A partition that stands for less than this may be one fetch that failed, ms. */
const STANDS_AFTER_MS = 4_000;

export class Watch {
  readonly #parts: WatchParts & Required<Pick<WatchParts, 'nowMs' | 'now'>>;
  /** By partition and topic: where it stood when last looked at, and since when. Kept while it is let go of after a fault: it lags on. */
  readonly #stood = new Map<string, Position & { readonly behind: boolean; readonly sinceMs: number }>();

  constructor(parts: WatchParts) {
    this.#parts = { nowMs: () => performance.now(), now: Date.now, ...parts };
  }

  /** Looks where the partitions stand: to be called every few seconds. */
  look(): void {
    this.#progress();
  }

  /** Why this instance is not ready; empty where it is. */
  unready(): readonly Unready[] {
    const { ends, nowMs, now } = this.#parts;
    const epochMs = (atMs: number) => now() - (nowMs() - atMs);
    return [
      ...ends.faults.map(({ topic, code, reason, sinceMs }) => ({ code, message: reason, sinceMs: epochMs(sinceMs), topic })),
      ...this.#standing().map(({ topic, partition, offset, code, reason, sinceMs }) => ({
        code,
        message: `${topic}/${partition} stands at offset ${offset}: ${reason}`,
        sinceMs,
        topic,
        partition,
        offset,
      })),
      ...this.#unread().map(({ topic, partition, records }) => ({
        code: 'TOPICS_INVALID' as const,
        message: `${topic}/${partition} was added, and is read by nobody (${records} records): a deployment has ${this.#parts.partitions} partitions for good`,
        sinceMs: now(),
        topic,
        partition,
      })),
    ];
  }

  report(): WatchReport {
    const { ends } = this.#parts;
    return {
      endsAgeSeconds: ends.ageMs / 1000,
      brokersAway: ends.brokersAway,
      progress: this.#progress(),
      standing: this.#standing(),
      unread: this.#unread(),
      unavailable: ends.faults.map(({ topic, code }) => ({ topic, code })),
    };
  }

  #standing() {
    const { standing, now } = this.#parts;
    const all = standing().map((at) => ({ ...at, forMs: now() - at.sinceMs }));
    return all.filter(({ forMs }) => forMs >= STANDS_AFTER_MS);
  }

  #progress(): readonly PartitionProgress[] {
    const { ends, positions, owned, nowMs, now } = this.#parts;
    const own = owned();
    for (const [key, { partition }] of this.#stood) if (own?.includes(partition) === false) this.#stood.delete(key);
    const endOf = ({ topic, partition }: Position) => ends.endsOf(topic).get(partition);
    const found = new Map(positions().map((at) => [`${at.partition}/${at.topic}`, at]));
    for (const [key, at] of found) {
      const before = this.#stood.get(key);
      const stands = before?.behind === true && before.nextOffset === at.nextOffset;
      const behind = (endOf(at) ?? 0) > at.nextOffset;
      this.#stood.set(key, { ...at, behind, sinceMs: stands ? before.sinceMs : nowMs() });
    }
    return [...this.#stood.values()].flatMap((at) => {
      const { topic, partition, nextOffset, waitingMs, sinceMs } = at;
      const end = endOf(at);
      if (end === undefined) return [];
      const lag = Math.max(0, end - nextOffset);
      if (lag === 0) return [{ topic, partition, lag, stalledSeconds: 0, oldestSeconds: 0 }];
      const stalledSeconds = (nowMs() - sinceMs) / 1000;
      const ageSeconds = waitingMs === undefined || waitingMs <= 0 ? 0 : (now() - waitingMs) / 1000;
      return [{ topic, partition, lag, stalledSeconds, oldestSeconds: Math.max(stalledSeconds, ageSeconds) }];
    });
  }

  #unread() {
    const { ends, topics, partitions } = this.#parts;
    return topics.flatMap((topic) =>
      [...ends.endsOf(topic)].flatMap(([partition, records]) => (partition < partitions ? [] : [{ topic, partition, records }])),
    );
  }
}
