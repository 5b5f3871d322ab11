/** Waiting for what may pass, and for nothing else. */
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { type ErrorCode, PipelineError } from '../../schemas/errors.ts';
import { isStopped, patiently } from '../../streams/patience.ts';

describe('patience', () => {
  beforeEach(() => void vi.useFakeTimers());
  afterEach(() => void vi.useRealTimers());

  /** Fails with these, in turn, and then succeeds. */
  const step = (...codes: ErrorCode[]) => {
    const left = [...codes];
    return vi.fn(async () => {
      const code = left.shift();
      if (code !== undefined) throw new PipelineError(code, 'no answer');
      return 'done';
    });
  };

  it('tries again, later each time, 5 s at most, and tells each time', async () => {
    const delays: number[] = [];
    const done = patiently(step(...Array<ErrorCode>(9).fill('KAFKA_UNAVAILABLE')), {
      onTrouble: (_, delayMs) => delays.push(delayMs),
    });
    await vi.runAllTimersAsync();
    expect(await done).toBe('done');
    expect(delays).toEqual([100, 200, 400, 800, 1_600, 3_200, 5_000, 5_000, 5_000]);
  });

  it.each([
    'KAFKA_AUTHENTICATION',
    'KAFKA_AUTHORIZATION',
    'TOPICS_INVALID',
    'CLOCK_OFF',
    'PRODUCER_FENCED',
    'STATE_CORRUPTED',
  ] as const)('is not for %s', async (code) => {
    const attempt = step(code);
    await expect(patiently(attempt)).rejects.toMatchObject({ code });
    expect(attempt).toHaveBeenCalledTimes(1);
  });

  it('has the end that it is given', async () => {
    const done = patiently(step(...Array<ErrorCode>(9).fill('KAFKA_FAILED')), { attempts: 3 }).catch(
      (error: PipelineError) => error.code,
    );
    await vi.runAllTimersAsync();
    expect(await done).toBe('KAFKA_FAILED');
  });

  it('ends at once when it is stopped while it waits', async () => {
    const stopping = new AbortController();
    const done = patiently(step(...Array<ErrorCode>(9).fill('KAFKA_FAILED')), { signal: stopping.signal }).catch(
      (error: unknown) => error,
    );
    await vi.advanceTimersByTimeAsync(1_000);
    stopping.abort();
    expect(isStopped(await done, stopping.signal)).toBe(true);
  });
});
