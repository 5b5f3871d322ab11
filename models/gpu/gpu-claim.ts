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

  /** For one thread: false the second time. */
  use(): boolean {
    if (this.#state !== 'taken') return false;
    this.#state = 'used';
    return true;
  }

  /** After the thread has ended in order, its buffers and sessions let go of. */
  release(): void {
    if (this.#state !== 'none') claimed = false;
    this.#state = 'none';
  }
}
