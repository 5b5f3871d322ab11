/** The client's side of one worker thread: calls by id, and a new thread when the old one dies. */
import type { Worker } from 'node:worker_threads';
import { PipelineError } from '../../schemas/errors.ts';
import type { ProviderReport } from '../gpu/choose-provider.ts';
import type { CallName, Calls, FromWorker, ToWorker } from './protocol.ts';

interface Pending {
  readonly resolve: (response: never) => void;
  readonly reject: (error: PipelineError) => void;
}

/** Told what a thread says unasked. */
export interface WorkerListener {
  readonly onProvider?: ((report: ProviderReport) => void) | undefined;
  readonly onDiskFailure?: ((message: string) => void) | undefined;
}

/** A worker that dies more often than this within a minute is not restarted: something is wrong for good. */
const MAX_RESTARTS_A_MINUTE = 5;

export class WorkerHandle {
  readonly #spawn: () => Worker;
  readonly #name: string;
  readonly #listener: WorkerListener;
  readonly #pending = new Map<number, Pending>();
  readonly #restarts: number[] = [];
  #worker: Worker;
  #nextId = 1;
  #restartCount = 0;
  #closed = false;
  #dead: PipelineError | undefined;

  constructor(name: string, spawn: () => Worker, listener: WorkerListener = {}) {
    this.#name = name;
    this.#spawn = spawn;
    this.#listener = listener;
    this.#worker = this.#start();
  }

  get restarts(): number {
    return this.#restartCount;
  }

  /**
   * @throws PipelineError `WORKER_CRASHED` (retriable) when the thread dies before it answers, `ENCODER_CLOSED` after `close`,
   *   `ENCODER_FAILED` once it has died too often, or what the worker itself reports
   */
  call<Name extends CallName>(name: Name, request: Calls[Name]['request']): Promise<Calls[Name]['response']> {
    if (this.#closed) return Promise.reject(new PipelineError('ENCODER_CLOSED', `${this.#name} is closed`));
    if (this.#dead !== undefined) return Promise.reject(this.#dead);
    const id = this.#nextId++;
    return new Promise((resolve, reject) => {
      this.#pending.set(id, { resolve: resolve as Pending['resolve'], reject });
      this.#worker.postMessage({ id, call: name, request } as ToWorker);
    });
  }

  /** Answers what was asked before, then ends the thread. */
  async close(): Promise<void> {
    if (this.#closed) return;
    const done = this.#dead === undefined ? this.call('close', null) : Promise.resolve(null);
    this.#closed = true;
    await done.catch(() => undefined);
    await this.#worker.terminate();
  }

  /**
   * Ends the thread as a crash would: its calls fail, a new one starts. For fault tests. By its own hand: a thread that is
   * terminated within the runtime takes the process with it.
   */
  async kill(): Promise<void> {
    const worker = this.#worker;
    const ended = new Promise((resolve) => worker.once('exit', resolve));
    worker.postMessage('die' satisfies ToWorker);
    await ended;
  }

  #start(): Worker {
    const worker = this.#spawn();
    let cause: unknown;
    worker.on('message', (reply: FromWorker) => this.#settle(reply));
    worker.on('error', (error) => {
      cause = error;
    });
    worker.on('exit', (code) => this.#ended(code, cause));
    return worker;
  }

  #settle(reply: FromWorker): void {
    if ('provider' in reply) {
      this.#listener.onProvider?.(reply.provider);
      return;
    }
    if ('diskFailure' in reply) {
      this.#listener.onDiskFailure?.(reply.diskFailure);
      return;
    }
    const pending = this.#pending.get(reply.id);
    if (pending === undefined) return;
    this.#pending.delete(reply.id);
    if ('failed' in reply) pending.reject(new PipelineError(reply.failed.code, reply.failed.message));
    else pending.resolve(reply.response as never);
  }

  #ended(code: number, cause: unknown): void {
    const lost = [...this.#pending.values()];
    this.#pending.clear();
    if (!this.#closed) this.#restart();
    const reason = cause instanceof Error ? cause.message : `exit code ${code}`;
    const error =
      this.#dead ??
      new PipelineError('WORKER_CRASHED', `${this.#name} died (${reason}); its caches are gone, it restarts`, { cause });
    for (const { reject } of lost) reject(error);
  }

  #restart(): void {
    const now = performance.now();
    while (this.#restarts.length > 0 && now - this.#restarts[0]! > 60_000) this.#restarts.shift();
    if (this.#restarts.length >= MAX_RESTARTS_A_MINUTE) {
      this.#dead = new PipelineError(
        'ENCODER_FAILED',
        `${this.#name} died ${MAX_RESTARTS_A_MINUTE + 1} times within a minute; not restarted`,
      );
      return;
    }
    this.#restarts.push(now);
    this.#restartCount += 1;
    this.#worker = this.#start();
  }
}
