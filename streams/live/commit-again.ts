/** A commit that met a cut connection is done again where it stands: not all that the instance holds is let go for it. */
import { setTimeout as sleep } from 'node:timers/promises';
import type { ChangelogReader } from '../../infra/kafka/changelog-reader.ts';
import type { Commit, OutgoingRecord, PartitionProducer } from '../../infra/kafka/partition-producer.ts';
import type { SourceRecord } from '../../schemas/action.ts';
import { PipelineError } from '../../schemas/errors.ts';
import { mayPass } from '../patience.ts';

export interface CommitAgainOptions {
  readonly producer: Pick<PartitionProducer, 'commit' | 'reopen'>;
  readonly commit: Commit;
  /**
   * Whether the commit whose answer did not come was done: its ends, by topic, or undefined where it was not. Asked after the producer
   * was opened anew, when nothing of before can come any more.
   *
   * @throws PipelineError `PRODUCER_FENCED` where another has committed meanwhile
   */
  readonly outcome: () => Promise<ReadonlyMap<string, number> | undefined>;
  /** Ends the trying. */
  readonly signal: AbortSignal;
  readonly onAgain: (error: PipelineError) => void;
  /** After this the fault is thrown, ms. @default 20000 */
  readonly withinMs?: number;
}

/** Doubled up to the last while nobody answers; a broker that has answered is asked again at once. */
const FIRST_DELAY_MS = 20;
const LAST_DELAY_MS = 1_000;

/**
 * Commits, once, however often it takes.
 *
 * @returns as `PartitionProducer.commit`
 * @throws PipelineError that trying again does not mend, or that went on for too long; committed or not, as `commit` says
 */
export async function commitAgain(options: CommitAgainOptions): Promise<ReadonlyMap<string, number>> {
  const { producer, commit, outcome, signal, onAgain, withinMs = 20_000 } = options;
  const until = performance.now() + withinMs;
  let uncertain = false;
  let delayMs = FIRST_DELAY_MS;
  for (;;) {
    try {
      if (uncertain) {
        await producer.reopen();
        delayMs = FIRST_DELAY_MS;
        const ends = await outcome();
        if (ends !== undefined) return ends;
        uncertain = false;
      }
      return await producer.commit(commit);
    } catch (thrown) {
      uncertain = true;
      if (!mayPass(thrown) || signal.aborted || performance.now() > until) throw thrown;
      onAgain(thrown);
      await sleep(delayMs, undefined, { signal }).catch(() => undefined);
      delayMs = Math.min(LAST_DELAY_MS, 2 * delayMs);
    }
  }
}

export interface ChangelogPlace {
  readonly changelog: Pick<ChangelogReader, 'readToEnd'>;
  readonly topic: string;
  readonly partition: number;
  /** Where the record after the newest commit that is known of is to be found. */
  readonly from: number;
  readonly signal: AbortSignal;
}

/**
 * What became of a commit, read from the changelog: all that it `logged` is there, or nothing. The last of it is its position, which names
 * its writer.
 *
 * @returns its end, by topic; undefined where it was not done
 * @throws PipelineError `PRODUCER_FENCED` for anything else: another is, or was, the owner
 */
export async function outcomeOf(
  logged: readonly OutgoingRecord[],
  { changelog, topic, partition, from, signal }: ChangelogPlace,
): Promise<ReadonlyMap<string, number> | undefined> {
  const found: SourceRecord[] = [];
  await changelog.readToEnd({
    partition,
    from,
    signal,
    apply: async ({ records }) => {
      for (const record of records) if (found.length <= logged.length) found.push(record);
    },
  });
  const last = found.at(-1);
  if (last === undefined) return undefined;
  if (found.length === logged.length && sameBytes(last.value, logged.at(-1)!.value))
    return new Map([[topic, last.position.offset + 1]]);
  const message = `committing partition ${partition}: ${topic} has records of another instance from offset ${from} on`;
  throw new PipelineError('PRODUCER_FENCED', message);
}

const sameBytes = (found: unknown, sent: Uint8Array | null): boolean =>
  found instanceof Uint8Array && sent !== null && Buffer.compare(found, sent) === 0;
