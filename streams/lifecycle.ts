/** Where a stream stands: STARTING → RESTORING → RUNNING → DRAINING → STOPPED, or FAILED from anywhere. */

export type LifecycleState = 'STARTING' | 'RESTORING' | 'RUNNING' | 'DRAINING' | 'STOPPED' | 'FAILED';

const ALLOWED: Record<LifecycleState, readonly LifecycleState[]> = {
  STARTING: ['RESTORING', 'RUNNING', 'DRAINING', 'FAILED'],
  RESTORING: ['RUNNING', 'DRAINING', 'FAILED'],
  RUNNING: ['RESTORING', 'DRAINING', 'FAILED'],
  DRAINING: ['STOPPED', 'FAILED'],
  STOPPED: [],
  FAILED: [],
};

export class Lifecycle {
  readonly #onChange: (state: LifecycleState, before: LifecycleState) => void;
  #state: LifecycleState = 'STARTING';

  constructor(onChange: (state: LifecycleState, before: LifecycleState) => void = () => undefined) {
    this.#onChange = onChange;
  }

  get state(): LifecycleState {
    return this.#state;
  }

  /** @throws Error for a transition that makes no sense: a fault of ours, not of the user's */
  to(state: LifecycleState): void {
    if (state === this.#state) return;
    if (!ALLOWED[this.#state].includes(state)) throw new Error(`a stream that is ${this.#state} cannot become ${state}`);
    const before = this.#state;
    this.#state = state;
    this.#onChange(state, before);
  }
}
