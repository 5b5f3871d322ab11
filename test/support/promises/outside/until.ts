import { sleep } from '../promise.ts';

/** Asks again and again, for an answer that is not undefined; undefined after `withinMs`. */
export async function until<T>(withinMs: number, ask: () => Promise<T | undefined>): Promise<T | undefined> {
  const deadline = performance.now() + withinMs;
  for (;;) {
    const answer = await ask();
    if (answer !== undefined || performance.now() > deadline) return answer;
    await sleep(200);
  }
}
