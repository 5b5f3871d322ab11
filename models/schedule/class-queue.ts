/** What of one class may be sent now: in lanes by kind and key, which take turns. */
import type { WaitingCall } from './waiting-call.ts';

export class ClassQueue {
  /** In the order of their turns; no lane where nobody waits. */
  readonly #lanes = new Map<string, WaitingCall[]>();

  get empty(): boolean {
    return this.#lanes.size === 0;
  }

  push(call: WaitingCall): void {
    const id = laneOf(call);
    const lane = this.#lanes.get(id);
    if (lane === undefined) this.#lanes.set(id, [call]);
    else lane.push(call);
  }

  /** The one whose turn it is; of one kind, where that is given. */
  peek(name?: WaitingCall['name']): WaitingCall | undefined {
    for (const [first] of this.#lanes.values()) if (name === undefined || first!.name === name) return first;
    return undefined;
  }

  /** Takes it out; its lane goes to the end. */
  take(call: WaitingCall): void {
    const id = laneOf(call);
    const lane = this.#lanes.get(id)!;
    lane.splice(lane.indexOf(call), 1);
    this.#lanes.delete(id);
    if (lane.length > 0) this.#lanes.set(id, lane);
  }
}

const laneOf = ({ name, key }: WaitingCall): string => `${name} ${key}`;
