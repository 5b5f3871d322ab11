/** Holds back what repeats itself: a broker that is away must not fill the disk with one sentence. */

interface Held {
  count: number;
  /** Says the newest of the repeated ones. */
  say: (repeated: number) => void;
  timer: NodeJS.Timeout;
}

/** Keys remembered; when there are more, the oldest is forgotten, and said again. */
const MAX_KEYS = 256;

export class RepeatGate {
  readonly #everyMs: number;
  readonly #held = new Map<string, Held>();

  /** @param everyMs how often a repetition is told, ms; 0 lets everything pass */
  constructor(everyMs: number) {
    this.#everyMs = everyMs;
  }

  /**
   * The first of a key is said at once, with 0. Those that follow are counted, and said as one after `everyMs`, with how
   * many they were; after an interval without any, the next is a first one again. Timers do not keep the process alive.
   */
  pass(key: string, say: (repeated: number) => void): void {
    const held = this.#held.get(key);
    if (held !== undefined) {
      held.count += 1;
      held.say = say;
      return;
    }
    say(0);
    if (this.#everyMs === 0) return;
    if (this.#held.size >= MAX_KEYS) {
      const [oldest, { timer, count, say: sayOldest }] = this.#held.entries().next().value!;
      clearInterval(timer);
      this.#held.delete(oldest);
      if (count > 0) sayOldest(count);
    }
    const timer = setInterval(() => this.#tell(key), this.#everyMs);
    timer.unref();
    this.#held.set(key, { count: 0, say, timer });
  }

  #tell(key: string): void {
    const held = this.#held.get(key)!;
    if (held.count === 0) {
      clearInterval(held.timer);
      this.#held.delete(key);
      return;
    }
    const { count } = held;
    held.count = 0;
    held.say(count);
  }
}
