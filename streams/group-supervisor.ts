/** An instance's life in its consumer group, whatever it does there: joining, assignments, draining, faults, recovery, leaving. */
import { type Observable, Subject } from 'rxjs';
import { GroupMembership } from '../infra/kafka/group-membership.ts';
import type { KafkaClient } from '../infra/kafka/kafka-client.ts';
import type { KafkaConfig } from '../schemas/config.ts';
import { PipelineError } from '../schemas/errors.ts';
import { Lifecycle, type LifecycleState } from './lifecycle.ts';
import type { Unready } from './watch.ts';

export interface GroupObserver {
  readonly onState?: (state: LifecycleState) => void;
  readonly onAssigned?: (partitions: readonly number[]) => void;
  readonly onRebalance?: () => void;
  /** A fault while the instance is opened, which is tried again. */
  readonly onWaiting?: (error: PipelineError, delayMs: number) => void;
  /** A fault after which the instance goes on from what it last committed. */
  readonly onRecovering?: (error: PipelineError, delayMs: number) => void;
  /** Every few seconds: why it is not ready although it runs, seen from outside its work; empty where it is. */
  readonly onWatched?: (unready: readonly Unready[]) => void;
  /** What ends the instance. Leaving the group and closing what is open come after, and may take their time. */
  readonly onFailed?: (error: unknown) => void;
}

/** What work is told while it is under way, and what it tells. */
export interface Shift {
  /** Aborted to finish: nothing more is read or restored. */
  readonly drain: AbortSignal;
  /** Ends the work with the error it emits, whatever is under way. */
  readonly failure$: Observable<never>;
  /** A state on the way to RUNNING; not heeded while the instance stops. */
  readonly become: (state: 'RESTORING' | 'RUNNING') => void;
  /** Something was committed: the faults before it count no longer. */
  readonly progressed: () => void;
}

/** What an instance does with the partitions that it owns. */
export interface GroupWork {
  /**
   * Works on these partitions until drained. What is held open may be kept for the next assignment, which may be another.
   *
   * @throws PipelineError a fault: retriable, the work is begun again after a while; `DOMException` `AbortError` when it was drained
   *   before it had begun
   */
  readonly carryOut: (partitions: readonly number[], shift: Shift) => Promise<void>;
  /**
   * Lets go of all that is held open, which others may own by now.
   *
   * @param fault what the work ended with; none where the group has put this instance out
   * @throws the fault, where beginning again would not mend it although it is retriable
   */
  readonly letGo: (fault?: PipelineError) => Promise<void>;
  /** Lets go of everything, at the end. */
  readonly close: () => Promise<void>;
}

export interface GroupSupervisorParts {
  readonly kafka: KafkaClient;
  readonly config: KafkaConfig;
  readonly topics: readonly string[];
  readonly work: GroupWork;
  readonly observer: GroupObserver;
}

/** Wait before the first recovery, ms; doubled up to the last. */
const FIRST_DELAY_MS = 200;
const LAST_DELAY_MS = 15_000;

/** What is done between two assignments. */
interface Underway {
  readonly drain: AbortController;
  readonly failure$: Subject<never>;
  readonly ended: Promise<void>;
}

export class GroupSupervisor {
  readonly #parts: GroupSupervisorParts;
  readonly #lifecycle: Lifecycle;
  #membership: GroupMembership | undefined;
  #memberId: string | undefined;
  /** What this instance owns; undefined while the group rebalances. */
  #assignment: readonly number[] | undefined;
  /** What ended the membership; joined again for. */
  #lost: PipelineError | undefined;
  /** Attempts to join again, in a row. */
  #rejoins = 0;
  /** Faults of the work, in a row. */
  #faults = 0;
  /** Of what all partitions share, and not met yet: what is open is to be opened anew. */
  #fault: PipelineError | undefined;
  /** Counts what the group has said, so that what is overtaken is not acted on. */
  #said = 0;
  #underway: Underway | undefined;
  #stopping = false;
  readonly #waiting = new Set<() => void>();

  constructor(parts: GroupSupervisorParts) {
    this.#parts = parts;
    this.#lifecycle = new Lifecycle((state) => parts.observer.onState?.(state));
  }

  get state(): LifecycleState {
    return this.#lifecycle.state;
  }

  /** Partitions that this instance owns; none while the group rebalances. */
  get owned(): readonly number[] {
    return this.#assignment ?? [];
  }

  /** The same, undefined while the group rebalances. */
  get assignment(): readonly number[] | undefined {
    return this.#assignment;
  }

  /**
   * Ends what is under way with `error`, as if it had come from the work: for faults of what all partitions share. Where nothing
   * is under way because the group rebalances, what is begun next.
   */
  fail(error: PipelineError): void {
    this.#fault = error;
    this.#underway?.failure$.error(error);
  }

  /** Tells the group how far this instance is. @throws as `GroupMembership.commit` */
  async commit(offsets: Parameters<GroupMembership['commit']>[0]): Promise<void> {
    await this.#membership?.commit(offsets);
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
      await this.#firstJoin();
      await this.#loop();
      await this.#leave();
      this.#lifecycle.to('STOPPED');
    } catch (error) {
      // A signal from now on comes too late: there is nothing left to drain.
      signal.removeEventListener('abort', stop);
      this.#lifecycle.to('FAILED');
      this.#parts.observer.onFailed?.(error);
      await this.#leave();
      throw error;
    }
  }

  async #leave(): Promise<void> {
    await this.#parts.work.close();
    await this.#membership?.leave();
  }

  /** Unless the instance is stopping: what still happens then is part of that. */
  #become(state: 'RESTORING' | 'RUNNING'): void {
    if (!this.#stopping) this.#lifecycle.to(state);
  }

  async #loop(): Promise<void> {
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
        await this.#carryOut(this.#assignment);
      } catch (thrown) {
        // Work that was called off before it had begun: what is open stays open.
        if (thrown instanceof DOMException && thrown.name === 'AbortError') continue;
        // Anything else is a fault of ours, which trying again would only repeat.
        if (!(thrown instanceof PipelineError)) throw thrown;
        await this.#recover(thrown);
      }
    }
  }

  async #carryOut(assignment: readonly number[]): Promise<void> {
    const drain = new AbortController();
    const ended = deferred();
    const failure$ = new Subject<never>();
    this.#underway = { drain, failure$, ended: ended.promise };
    if (this.#stopping) drain.abort();
    try {
      if (this.#fault !== undefined) throw this.#fault;
      await this.#parts.work.carryOut(assignment, {
        drain: drain.signal,
        failure$,
        become: (state) => this.#become(state),
        progressed: () => {
          this.#faults = 0;
        },
      });
    } finally {
      this.#underway = undefined;
      ended.resolve();
    }
  }

  /** What was under way is as if it had not been; after a while it is begun again. */
  async #recover(error: PipelineError): Promise<void> {
    await this.#parts.work.letGo(error);
    this.#fault = undefined;
    if (!error.retriable) throw error;
    const delayMs = delayAfter(this.#faults++);
    this.#parts.observer.onRecovering?.(error, delayMs);
    if (this.#lifecycle.state === 'RUNNING') this.#become('RESTORING');
    await this.#wait(delayMs);
    // Fenced, this instance may be a zombie: taking over again what is another's by now would fence its owner.
    if (error.code === 'PRODUCER_FENCED' && !this.#stopping) await Promise.race([this.#membership!.confirmed(), this.#woken()]);
  }

  /** A start is as patient as a run: what may pass is waited for in the loop. */
  async #firstJoin(): Promise<void> {
    if (this.#stopping) return;
    try {
      await this.#join();
    } catch (thrown) {
      if (!(thrown instanceof PipelineError) || !thrown.retriable) throw thrown;
      this.#lost = thrown;
    }
  }

  async #join(): Promise<void> {
    const { kafka, config, topics } = this.#parts;
    this.#membership = new GroupMembership(kafka, config, topics, {
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
    await this.#parts.work.letGo();
    await this.#membership?.leave();
    const delayMs = delayAfter(this.#rejoins++);
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
      if (this.#memberId !== undefined && this.#memberId !== memberId) await this.#parts.work.letGo();
      this.#memberId = memberId;
      // Letting go took its time, and the group has rebalanced again: carried out now, this would never be drained.
      if (said !== this.#said) return;
      this.#assignment = partitions;
      this.#wake();
    };
    void (this.#underway?.ended ?? Promise.resolve()).then(begin);
  }

  /** Lets the work end in good order, and, if that takes too long, at once. */
  async #finishWork(): Promise<void> {
    const underway = this.#underway;
    if (underway === undefined) return;
    underway.drain.abort();
    const { drainTimeoutMs } = this.#parts.config;
    const late = setTimeout(() => {
      const message = `what was in flight was not committed within kafka.drainTimeoutMs ${drainTimeoutMs}; it will be done again`;
      underway.failure$.error(new PipelineError('KAFKA_FAILED', message));
    }, drainTimeoutMs);
    await underway.ended;
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

  /** Waits, unless the instance is stopped meanwhile. */
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

const delayAfter = (faults: number): number => Math.min(LAST_DELAY_MS, FIRST_DELAY_MS * 2 ** faults);

function deferred(): { readonly promise: Promise<void>; readonly resolve: () => void } {
  let resolve!: () => void;
  const promise = new Promise<void>((done) => {
    resolve = done;
  });
  return { promise, resolve };
}
