/** What the deployment promises under faults: shown briefly in the integration suite, and at length by `npm run faults`. */
import type { UserAction } from '../../../schemas/action.ts';
import { liveEvents } from '../live-bundle.ts';
import type { LiveWorld } from '../live-world.ts';

export interface Shown {
  /** What was seen, for the table. */
  readonly facts: Readonly<Record<string, string | number>>;
  /** Breaches of the promise, a line each. */
  readonly problems: readonly string[];
  /** Why it could not be shown on this machine. */
  readonly skipped?: string;
}

export type Say = (text: string) => void;

export const sleep = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

/** Produces at a steady rate until told to stop, and remembers what it has produced. */
export class Load {
  readonly actions: UserAction[] = [];
  readonly #world: LiveWorld;
  #stopping = false;
  #done: Promise<void> = Promise.resolve();

  constructor(world: LiveWorld) {
    this.#world = world;
  }

  start({ perSecond, users, seed = 1 }: { readonly perSecond: number; readonly users: number; readonly seed?: number }): this {
    const batch = Math.max(1, Math.round(perSecond / 20));
    const run = async () => {
      const began = performance.now();
      while (!this.#stopping) {
        const actions = liveEvents({ events: batch, users, seed, from: this.actions.length });
        await this.#world.produce(actions);
        this.actions.push(...actions);
        const due = (1000 * this.actions.length) / perSecond - (performance.now() - began);
        if (due > 0) await sleep(due);
      }
    };
    this.#done = run();
    return this;
  }

  async stop(): Promise<readonly UserAction[]> {
    this.#stopping = true;
    await this.#done;
    return this.actions;
  }
}

/** Waits until all is consumed; then outputs and state against what the actions must give. */
export async function settle(world: LiveWorld, actions: readonly UserAction[], timeoutMs = 90_000): Promise<Shown> {
  await world.untilConsumed(actions.length, timeoutMs);
  const { users, maxDelta, problems } = await world.verify(actions);
  const all = [...problems, ...(await world.verifyState(actions))];
  if (!(maxDelta <= 1e-4)) all.push(`an embedding differs by ${maxDelta} from its full encode`);
  return { facts: { events: actions.length, users, 'max |Δ|': maxDelta.toExponential(1) }, problems: all };
}
