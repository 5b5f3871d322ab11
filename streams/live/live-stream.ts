/** An instance of the consumer deployment, from joining the group to leaving it: through rebalances, faults and its end. */
import { Subject } from 'rxjs';
import { GroupMembership } from '../../infra/kafka/group-membership.ts';
import type { OutputBatch } from '../../schemas/batch.ts';
import { PipelineError } from '../../schemas/errors.ts';
import { Lifecycle, type LifecycleState } from '../lifecycle.ts';
import { type FlowOptions, flow } from '../live.ts';
import { PartitionTask, type TaskObserver, type TaskParts } from './partition-task.ts';
import type { Standby } from './standby.ts';

export interface LiveObserver extends TaskObserver {
  readonly onState?: (state: LifecycleState) => void;
  readonly onAssigned?: (partitions: readonly number[]) => void;
  readonly onRebalance?: () => void;
  /** A fault after which the stream goes on from its last commit. */
  readonly onRecovering?: (error: PipelineError, delayMs: number) => void;
  readonly onCommitted?: (batch: OutputBatch) => void;
}

export interface LiveStreamParts {
  readonly task: TaskParts;
  readonly pipeline: FlowOptions['parts'];
  readonly observer: LiveObserver;
  /** Follows the partitions of others. @default none */
  readonly standby?: Standby | undefined;
}

/** Wait before the first recovery, ms; doubled up to the last. */
const FIRST_DELAY_MS = 200;
const LAST_DELAY_MS = 15_000;
/** Corrupted this often in a row, it is the changelog that is damaged. */
const MAX_CORRUPTIONS = 3;

/** What is done between two assignments. */
interface Work {
  /** Aborted to finish: nothing more is read or restored. */
  readonly drain: AbortController;
  readonly failure$: Subject<never>;
  readonly ended: Promise<void>;
}

export class LiveStream {
  readonly #parts: LiveStreamParts;
  readonly #lifecycle: Lifecycle;
  readonly #tasks = new Map<number, PartitionTask>();
  #membership: GroupMembership | undefined;
  #memberId: string | undefined;
  /** What this instance owns; undefined while the group rebalances. */
  #assignment: readonly number[] | undefined;
  #lost: PipelineError | undefined;
  /** Attempts to join again, in a row. */
  #rejoins = 0;
  /** Of what all partitions share, and not met yet: what is open is to be opened anew. */
  #fault: PipelineError | undefined;
  /** Counts what the group has said, so that what is overtaken is not acted on. */
  #said = 0;
  #work: Work | undefined;
  #stopping = false;
  readonly #waiting = new Set<() => void>();

  constructor(parts: LiveStreamParts) {
    this.#parts = parts;
    this.#lifecycle = new Lifecycle((state) => parts.observer.onState?.(state));
  }

  get state(): LifecycleState {
    return this.#lifecycle.state;
  }

  /**
   * Ends what flows with `error`, as if it had come from a step: for faults of what all partitions share. Where nothing flows
   * because the group rebalances, what flows next.
   */
  fail(error: PipelineError): void {
    this.#fault = error;
    this.#work?.failure$.error(error);
  }

  get tasks(): ReadonlyMap<number, PartitionTask> {
    return this.#tasks;
  }

  /**
   * Runs until stopped.
   *
   * @throws PipelineError that trying again does not mend; all that was committed stays, nothing else does
   */
  async run(signal: AbortSignal): Promise<void> {
    const stop = () => {
      this.#stopping = true;
      // Said before the work is finished, not after: nobody is to be sent to an instance that is going.
      this.#lifecycle.to('DRAINING');
      void this.#finishWork();
      this.#wake();
    };
    if (signal.aborted) stop();
    else signal.addEventListener('abort', stop, { once: true });
    try {
      await this.#join();
      await this.#loop();
      await this.#handOver([...this.#tasks.keys()]);
      await this.#parts.standby?.close();
      await this.#membership?.leave();
      this.#lifecycle.to('STOPPED');
    } catch (error) {
      this.#lifecycle.to('FAILED');
      await this.#handOver([...this.#tasks.keys()]);
      await this.#parts.standby?.close();
      await this.#membership?.leave();
      throw error;
    }
  }

  /** Unless the stream is stopping: what still happens then is part of that. */
  #become(state: 'RESTORING' | 'RUNNING'): void {
    if (!this.#stopping) this.#lifecycle.to(state);
  }

  async #loop(): Promise<void> {
    let faults = 0;
    let corruptions = 0;
    while (!this.#stopping) {
      if (this.#lost !== undefined) {
        await this.#rejoin();
        continue;
      }
      if (this.#assignment === undefined) {
        await this.#woken();
        continue;
      }
      try {
        await this.#carryOut(this.#assignment, () => {
          faults = 0;
          corruptions = 0;
        });
      } catch (thrown) {
        // A taking over that was called off: what is open stays open.
        if (thrown instanceof DOMException && thrown.name === 'AbortError') continue;
        // Anything else is a fault of ours, which trying again would only repeat.
        if (!(thrown instanceof PipelineError)) throw thrown;
        const error = thrown;
        // What is under way is as if it had not been: memory, transactions and, behind them, the local stores.
        const corrupted = error.code === 'STATE_CORRUPTED';
        if (corrupted) for (const task of this.#tasks.values()) await task.discardStore();
        await this.#handOver([...this.#tasks.keys()]);
        this.#fault = undefined;
        if (corrupted) corruptions += 1;
        if (!error.retriable || corruptions >= MAX_CORRUPTIONS) throw error;
        const delayMs = Math.min(LAST_DELAY_MS, FIRST_DELAY_MS * 2 ** faults++);
        this.#parts.observer.onRecovering?.(error, delayMs);
        if (this.#lifecycle.state === 'RUNNING') this.#become('RESTORING');
        await this.#wait(delayMs);
        // Fenced, this instance may be a zombie: taking over again what is another's by now would fence its owner.
        if (error.code === 'PRODUCER_FENCED' && !this.#stopping)
          await Promise.race([this.#membership!.confirmed(), this.#woken()]);
      }
    }
  }

  /** Takes over what is assigned, and lets it flow until the group rebalances, the stream stops, or something fails. */
  async #carryOut(assignment: readonly number[], onProgress: () => void): Promise<void> {
    const { standby } = this.#parts;
    const drain = new AbortController();
    const ended = deferred();
    const failure$ = new Subject<never>();
    this.#work = { drain, failure$, ended: ended.promise };
    if (this.#stopping) drain.abort();
    try {
      if (this.#fault !== undefined) throw this.#fault;
      const lost = [...this.#tasks.keys()].filter((partition) => !assignment.includes(partition));
      await this.#handOver(lost);
      const gained = assignment.filter((partition) => !this.#tasks.has(partition));
      await standby?.own(assignment);
      if (gained.length > 0) {
        this.#become('RESTORING');
        await this.#takeOver(gained, drain.signal);
      }
      standby?.follow();
      this.#become('RUNNING');
      await flow({
        tasks: this.#tasks,
        parts: this.#parts.pipeline,
        drain: drain.signal,
        failure$,
        onCommitted: (batch) => {
          onProgress();
          this.#parts.observer.onCommitted?.(batch);
        },
      });
    } finally {
      this.#work = undefined;
      ended.resolve();
    }
  }

  async #takeOver(partitions: readonly number[], signal: AbortSignal): Promise<void> {
    const opened = await Promise.allSettled(
      partitions.map((partition) => PartitionTask.open(partition, this.#parts.task, signal)),
    );
    for (const result of opened) if (result.status === 'fulfilled') this.#tasks.set(result.value.partition, result.value);
    const failed = opened.find((result) => result.status === 'rejected');
    if (failed !== undefined) throw failed.reason;
  }

  async #handOver(partitions: readonly number[]): Promise<void> {
    await Promise.all(
      partitions.map(async (partition) => {
        await this.#tasks.get(partition)?.close();
        this.#tasks.delete(partition);
      }),
    );
  }

  async #join(): Promise<void> {
    const { kafka, config, topics } = this.#parts.task;
    this.#membership = new GroupMembership(kafka, config.kafka, topics, {
      onRebalance: () => this.#onRebalance(),
      onAssigned: (partitions, memberId) => this.#onAssigned(partitions, memberId),
      onError: (error) => {
        this.#lost = error;
        this.#said += 1;
        this.#assignment = undefined;
        void this.#finishWork();
        this.#wake();
      },
    });
    await this.#membership.join();
  }

  /** After a fault that ended kafkajs' consumer: nothing is owned any more. Tried again until it helps, or cannot. */
  async #rejoin(): Promise<void> {
    const error = this.#lost!;
    if (!error.retriable) throw error;
    this.#lost = undefined;
    await this.#handOver([...this.#tasks.keys()]);
    await this.#membership?.leave();
    const delayMs = Math.min(LAST_DELAY_MS, FIRST_DELAY_MS * 2 ** this.#rejoins++);
    this.#parts.observer.onRecovering?.(error, delayMs);
    await this.#wait(delayMs);
    if (this.#stopping) return;
    try {
      await this.#join();
      this.#rejoins = 0;
    } catch (thrown) {
      if (!(thrown instanceof PipelineError)) throw thrown;
      this.#lost = thrown;
    }
  }

  /** The last moment to commit: the group waits for this instance's join, which waits for this. */
  async #onRebalance(): Promise<void> {
    this.#parts.observer.onRebalance?.();
    this.#said += 1;
    this.#assignment = undefined;
    await this.#finishWork();
  }

  #onAssigned(partitions: readonly number[], memberId: string): void {
    this.#parts.observer.onAssigned?.(partitions);
    const said = ++this.#said;
    const begin = async () => {
      // Under another member id this instance was out of the group: others may have owned what it still holds.
      if (this.#memberId !== undefined && this.#memberId !== memberId) await this.#handOver([...this.#tasks.keys()]);
      this.#memberId = memberId;
      // Handing over took its time, and the group has rebalanced again: carried out now, this would never be drained.
      if (said !== this.#said) return;
      this.#assignment = partitions;
      this.#wake();
    };
    void (this.#work?.ended ?? Promise.resolve()).then(begin);
  }

  /** Lets the work end in good order, and, if that takes too long, at once. */
  async #finishWork(): Promise<void> {
    const work = this.#work;
    if (work === undefined) return;
    work.drain.abort();
    const { drainTimeoutMs } = this.#parts.task.config.kafka;
    const late = setTimeout(() => {
      const message = `what was in flight was not committed within kafka.drainTimeoutMs ${drainTimeoutMs}; it will be done again`;
      work.failure$.error(new PipelineError('KAFKA_FAILED', message));
    }, drainTimeoutMs);
    await work.ended;
    clearTimeout(late);
  }

  /** Resolves at the next change of what is to be done. */
  #woken(): Promise<void> {
    return new Promise((resolve) => this.#waiting.add(resolve));
  }

  #wake(): void {
    for (const resolve of this.#waiting) resolve();
    this.#waiting.clear();
  }

  /** Waits, unless the stream is stopped meanwhile. */
  async #wait(delayMs: number): Promise<void> {
    let over = false;
    const timer = setTimeout(() => {
      over = true;
      this.#wake();
    }, delayMs);
    while (!over && !this.#stopping) await this.#woken();
    clearTimeout(timer);
  }
}

function deferred(): { readonly promise: Promise<void>; readonly resolve: () => void } {
  let resolve!: () => void;
  const promise = new Promise<void>((done) => {
    resolve = done;
  });
  return { promise, resolve };
}
