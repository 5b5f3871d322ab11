/** The queue in front of one encoder thread: who is next, and what goes together. */
import {
  type CallTerms,
  type ClassLoad,
  type EncoderLoad,
  type EncoderRun,
  WORK_CLASSES,
  type WorkClass,
} from '../../schemas/encoding.ts';
import { PipelineError } from '../../schemas/errors.ts';
import type { Calls } from '../worker/protocol.ts';
import { ClassQueue } from './class-queue.ts';
import type { ScheduledName, WaitingCall } from './waiting-call.ts';

export interface ScheduleOptions {
  /** Requests that go to the thread at once, at most, where they come in several calls; one call is never cut. @default 64 */
  readonly maxRunUsers?: number;
  /** Requests of the class `request` that wait, at most; the others wait for their callers. @default 4096 */
  readonly maxWaiting?: number;
  /** Shares of a thread's time where all three have work. @default { request: 16, update: 4, backfill: 1 } */
  readonly weights?: Readonly<Record<WorkClass, number>>;
}

export interface SchedulerParts {
  /** Carries out a run; the runs are carried out in the order they are sent. */
  readonly send: (name: ScheduledName, requests: readonly unknown[]) => Promise<readonly unknown[]>;
  readonly onRun?: ((run: EncoderRun) => void) | undefined;
  /** Clock of durations, ms. @default performance.now */
  readonly clock?: () => number;
  /** Clock of deadlines, ms since the epoch. @default Date.now */
  readonly now?: () => number;
}

interface ClassState {
  readonly queue: ClassQueue;
  readonly weight: number;
  /** Requests in the queue, and behind others of their users. */
  waiting: number;
  /** Time it was given by its weight: of those with work, the class that was given least is next. */
  served: number;
  busy: number;
  late: number;
}

/**
 * - **at once** a thread that has nothing to do is given what comes; while it is busy calls gather, and those of one class and kind
 *   go together
 * - **classes** by weight (start-time fair queueing): one that was idle is next, one that always has work never starves another
 * - **fair** the keys of a class take turns, a call each
 * - **order** of a user's calls is kept; one that waits behind a less urgent one makes that as urgent
 * - **fault** of a run that fails, each call is tried by itself, so that only the one at fault fails; not where the thread died
 */
export class CallScheduler {
  readonly #parts: SchedulerParts;
  readonly #clock: () => number;
  readonly #now: () => number;
  readonly #maxRunUsers: number;
  readonly #maxWaiting: number;
  readonly #classes: Readonly<Record<WorkClass, ClassState>>;
  readonly #waiting = new Set<WaitingCall>();
  /** Each user's newest call that waits. */
  readonly #newest = new Map<string, WaitingCall>();
  #sent = 0;
  #lastDoneMs = Number.NEGATIVE_INFINITY;
  /** `served` of the class that was given the newest run, as it began. */
  #virtual = 0;
  #pumping = false;

  constructor(parts: SchedulerParts, options: ScheduleOptions = {}) {
    const { maxRunUsers = 64, maxWaiting = 4_096, weights = { request: 16, update: 4, backfill: 1 } } = options;
    this.#parts = parts;
    this.#clock = parts.clock ?? (() => performance.now());
    this.#now = parts.now ?? Date.now;
    this.#maxRunUsers = maxRunUsers;
    this.#maxWaiting = maxWaiting;
    this.#classes = byClass((each) => ({
      queue: new ClassQueue(),
      weight: weights[each],
      waiting: 0,
      served: 0,
      busy: 0,
      late: 0,
    }));
  }

  /**
   * One answer a request, in their order.
   *
   * @throws PipelineError `ENCODER_BUSY` (retriable) where the class `request` has too many waiting, `DEADLINE_PASSED`; whatever
   *   the thread answers with
   */
  submit<Name extends ScheduledName>(
    name: Name,
    requests: Calls[Name]['request'],
    { workClass = name === 'encodeInBulk' ? 'backfill' : 'update', key = 0, deadlineMs }: CallTerms = {},
  ): Promise<Calls[Name]['response']> {
    const state = this.#classes[workClass];
    if (workClass === 'request' && state.waiting > 0 && state.waiting + requests.length > this.#maxWaiting) {
      state.busy += requests.length;
      return Promise.reject(
        new PipelineError('ENCODER_BUSY', `${state.waiting} requests wait for the encoder, of at most ${this.#maxWaiting}`),
      );
    }
    return new Promise((resolve, reject) => {
      const users = requests.flatMap((request) => ('userId' in request ? [request.userId] : []));
      const sinceMs = this.#clock();
      const ends = { resolve: resolve as WaitingCall['resolve'], reject };
      this.#enter({ name, requests, users, workClass, key, deadlineMs, sinceMs, behind: new Set(), followers: [], ...ends });
      this.#pumpSoon();
    });
  }

  /** Sends all that waits, of one user or of all, at once: what is sent to the thread from now on comes after it. */
  flush(userId?: string): void {
    const last = userId === undefined ? [...this.#waiting] : [this.#newest.get(userId)];
    for (const call of last) if (call !== undefined) this.#sendNow(call);
  }

  get load(): EncoderLoad {
    return byClass((each): ClassLoad => {
      const { waiting, busy, late } = this.#classes[each];
      return { waiting, busy, late };
    });
  }

  #enter(call: WaitingCall): void {
    for (const userId of call.users) {
      const before = this.#newest.get(userId);
      if (before !== undefined && before !== call && !call.behind.has(before)) {
        call.behind.add(before);
        before.followers.push(call);
      }
      this.#newest.set(userId, call);
    }
    this.#waiting.add(call);
    this.#classes[call.workClass].waiting += call.requests.length;
    if (call.behind.size === 0) this.#makeReady(call);
    else for (const before of call.behind) this.#raise(before, call.workClass);
  }

  #makeReady(call: WaitingCall): void {
    const state = this.#classes[call.workClass];
    if (state.queue.empty) state.served = Math.max(state.served, this.#virtual);
    state.queue.push(call);
  }

  /** A more urgent call waits behind it. */
  #raise(call: WaitingCall, workClass: WorkClass): void {
    if (WORK_CLASSES.indexOf(call.workClass) <= WORK_CLASSES.indexOf(workClass)) return;
    const ready = call.behind.size === 0;
    if (ready) this.#classes[call.workClass].queue.take(call);
    this.#classes[call.workClass].waiting -= call.requests.length;
    call.workClass = workClass;
    this.#classes[workClass].waiting += call.requests.length;
    if (ready) this.#makeReady(call);
    for (const before of call.behind) this.#raise(before, workClass);
  }

  /** Takes it out of the queue; those of its users that come after it may be next. */
  #leave(call: WaitingCall): void {
    const state = this.#classes[call.workClass];
    state.queue.take(call);
    state.waiting -= call.requests.length;
    this.#waiting.delete(call);
    for (const userId of call.users) if (this.#newest.get(userId) === call) this.#newest.delete(userId);
    for (const follower of call.followers) {
      follower.behind.delete(call);
      if (follower.behind.size === 0) this.#makeReady(follower);
    }
  }

  /** What comes in one turn goes together. */
  #pumpSoon(): void {
    if (this.#pumping) return;
    this.#pumping = true;
    queueMicrotask(() => {
      this.#pumping = false;
      while (this.#mayBegin() && this.#sendNext());
    });
  }

  /** Where there is enough for a full run, one waits in the thread, so that it never stands still; what is less goes on growing here. */
  #mayBegin(): boolean {
    if (this.#sent === 0) return true;
    return this.#sent === 1 && WORK_CLASSES.some((each) => this.#classes[each].waiting >= this.#maxRunUsers);
  }

  /** Whether there was anything. */
  #sendNext(): boolean {
    const withWork = WORK_CLASSES.filter((each) => !this.#classes[each].queue.empty);
    if (withWork.length === 0) return false;
    const workClass = withWork.reduce((a, b) => (this.#classes[b].served < this.#classes[a].served ? b : a));
    const { queue, served } = this.#classes[workClass];
    const run: WaitingCall[] = [];
    let users = 0;
    for (let call = queue.peek(); call !== undefined; call = queue.peek(run[0]?.name)) {
      if (run.length > 0 && users + call.requests.length > this.#maxRunUsers) break;
      this.#leave(call);
      if (this.#isLate(call)) continue;
      run.push(call);
      users += call.requests.length;
    }
    if (run.length > 0) {
      this.#virtual = served;
      this.#send(run);
    }
    return true;
  }

  #isLate({ deadlineMs, workClass, requests, reject }: WaitingCall): boolean {
    if (deadlineMs === undefined || deadlineMs >= this.#now()) return false;
    this.#classes[workClass].late += requests.length;
    reject(new PipelineError('DEADLINE_PASSED', `not begun by its deadline, ${new Date(deadlineMs).toISOString()}`));
    return true;
  }

  #sendNow(call: WaitingCall): void {
    for (const before of call.behind) this.#sendNow(before);
    if (!this.#waiting.has(call)) return;
    this.#leave(call);
    if (!this.#isLate(call)) this.#send([call]);
  }

  #send(run: readonly WaitingCall[]): void {
    const { name, workClass } = run[0]!;
    const requests = run.length === 1 ? run[0]!.requests : run.flatMap((call) => call.requests);
    const sentMs = this.#clock();
    this.#parts.onRun?.({ workClass, users: requests.length, waitedMs: run.map(({ sinceMs }) => sentMs - sinceMs) });
    this.#sent += 1;
    this.#parts
      .send(name, requests)
      .then(
        (answers) => settle(run, answers),
        (error: PipelineError) => this.#failed(run, error),
      )
      .finally(() => {
        const doneMs = this.#clock();
        const state = this.#classes[workClass];
        state.served += (doneMs - Math.max(sentMs, this.#lastDoneMs)) / state.weight;
        this.#lastDoneMs = doneMs;
        this.#sent -= 1;
        this.#pumpSoon();
      });
  }

  async #failed(run: readonly WaitingCall[], error: PipelineError): Promise<void> {
    if (run.length === 1 || error.code !== 'ENCODER_FAILED') for (const { reject } of run) reject(error);
    else
      for (const call of run)
        await this.#parts.send(call.name, call.requests).then((answers) => settle([call], answers), call.reject);
  }
}

const byClass = <T>(project: (workClass: WorkClass) => T): Readonly<Record<WorkClass, T>> => ({
  request: project('request'),
  update: project('update'),
  backfill: project('backfill'),
});

function settle(run: readonly WaitingCall[], answers: readonly unknown[]): void {
  let next = 0;
  for (const { requests, resolve } of run) {
    resolve((run.length === 1 ? answers : answers.slice(next, next + requests.length)) as readonly never[]);
    next += requests.length;
  }
}
