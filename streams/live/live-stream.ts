/** An instance of the consumer deployment: what it does with its partitions, from taking them over to handing them on. */
import type { OutputBatch } from '../../schemas/batch.ts';
import type { PipelineError } from '../../schemas/errors.ts';
import { type GroupObserver, GroupSupervisor, type Shift } from '../group-supervisor.ts';
import type { LifecycleState } from '../lifecycle.ts';
import { type FlowOptions, flow } from '../live.ts';
import type { Misplaced } from '../misplaced.ts';
import { patiently } from '../patience.ts';
import { PartitionTask, type TaskObserver, type TaskParts } from './partition-task.ts';
import type { Standby } from './standby.ts';

export interface LiveObserver extends TaskObserver, GroupObserver {
  readonly onCommitted?: (batch: OutputBatch) => void;
  /** A record that does not lie on its user's partition. */
  readonly onMisplaced?: (misplaced: Misplaced) => void;
}

export interface LiveStreamParts {
  readonly task: TaskParts;
  readonly pipeline: FlowOptions['parts'];
  readonly observer: LiveObserver;
  /** Awaited before partitions are taken over. @throws PipelineError why they cannot be. @default nothing is waited for */
  readonly beforeTakeOver?: () => Promise<void>;
  /** Follows the partitions of others. @default none */
  readonly standby?: Standby | undefined;
}

const OPENING_ATTEMPTS = 5;
/** Corrupted this often in a row, it is the changelog that is damaged. */
const MAX_CORRUPTIONS = 3;

export class LiveStream {
  readonly #parts: LiveStreamParts;
  readonly #supervisor: GroupSupervisor;
  readonly #tasks = new Map<number, PartitionTask>();
  #corruptions = 0;

  constructor(parts: LiveStreamParts) {
    this.#parts = parts;
    const { kafka, config, topics } = parts.task;
    this.#supervisor = new GroupSupervisor({
      kafka,
      config: config.kafka,
      topics,
      observer: parts.observer,
      work: {
        carryOut: (partitions, shift) => this.#carryOut(partitions, shift),
        letGo: (fault) => this.#letGo(fault),
        close: async () => {
          await this.#letGo();
          await parts.standby?.close();
        },
      },
    });
  }

  get state(): LifecycleState {
    return this.#supervisor.state;
  }

  /** Partitions that are its own; undefined while the group rebalances. */
  get assignment(): readonly number[] | undefined {
    return this.#supervisor.assignment;
  }

  get tasks(): ReadonlyMap<number, PartitionTask> {
    return this.#tasks;
  }

  /** Ends what flows with `error`: see `GroupSupervisor.fail`. */
  fail(error: PipelineError): void {
    this.#supervisor.fail(error);
  }

  /** Runs until stopped. @throws PipelineError that trying again does not mend; all that was committed stays, nothing else does */
  run(signal: AbortSignal): Promise<void> {
    return this.#supervisor.run(signal);
  }

  /** Takes over what is assigned, and lets it flow until the group rebalances, the stream stops, or something fails. */
  async #carryOut(assignment: readonly number[], { drain, failure$, become, progressed }: Shift): Promise<void> {
    const { standby } = this.#parts;
    const lost = [...this.#tasks.keys()].filter((partition) => !assignment.includes(partition));
    await this.#handOver(lost);
    const gained = assignment.filter((partition) => !this.#tasks.has(partition));
    await standby?.own(assignment);
    if (gained.length > 0) {
      become('RESTORING');
      await this.#parts.beforeTakeOver?.();
      await this.#takeOver(gained, drain);
    }
    standby?.follow();
    become('RUNNING');
    await flow({
      tasks: this.#tasks,
      parts: this.#parts.pipeline,
      drain,
      failure$,
      onCommitted: (batch) => {
        this.#corruptions = 0;
        progressed();
        this.#parts.observer.onCommitted?.(batch);
      },
    });
  }

  async #takeOver(partitions: readonly number[], signal: AbortSignal): Promise<void> {
    const opened = await Promise.allSettled(
      partitions.map((partition) =>
        // One that meets a cut connection begins again by itself: the others keep what they have.
        patiently(() => PartitionTask.open(partition, this.#parts.task, signal), { signal, attempts: OPENING_ATTEMPTS }),
      ),
    );
    for (const result of opened) if (result.status === 'fulfilled') this.#tasks.set(result.value.partition, result.value);
    const failed = opened.find((result) => result.status === 'rejected');
    if (failed !== undefined) throw failed.reason;
  }

  /** What is under way is as if it had not been: memory, transactions and, behind them, the local stores. */
  async #letGo(fault?: PipelineError): Promise<void> {
    const corrupted = fault?.code === 'STATE_CORRUPTED';
    if (corrupted) for (const task of this.#tasks.values()) await task.discardStore();
    await this.#handOver([...this.#tasks.keys()]);
    if (corrupted && ++this.#corruptions >= MAX_CORRUPTIONS) throw fault;
  }

  async #handOver(partitions: readonly number[]): Promise<void> {
    await Promise.all(
      partitions.map(async (partition) => {
        await this.#tasks.get(partition)?.close();
        this.#tasks.delete(partition);
      }),
    );
  }
}
