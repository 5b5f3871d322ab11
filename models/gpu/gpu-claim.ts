/** The one right to start a thread that uses the GPU: two such threads in a process end it. Kept on the thread that starts them. */

let claimed = false;

export class GpuClaim {
  #state: 'none' | 'taken' | 'used' = 'none';

  /** Whether the right was free. */
  take(): boolean {
    if (claimed) return false;
    claimed = true;
    this.#state = 'taken';
    return true;
  }

  /** For one thread. The second time the first one has died, who knows how much of it still on the GPU: nobody gets the right again. */
  use(): boolean {
    const free = this.#state === 'taken';
    this.#state = free ? 'used' : 'none';
    return free;
  }

  /** After the thread has ended in order, its buffers and sessions let go of. */
  release(): void {
    if (this.#state !== 'none') claimed = false;
    this.#state = 'none';
  }
}
