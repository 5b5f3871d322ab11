/** The encoder's promises across threads: the same rows for any number of workers, and a clear answer whatever happens to one. */
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import fc from 'fast-check';
import { afterEach, describe, expect, it } from 'vitest';
import { type EncoderOptions, HstuEncoder } from '../../../models/encoder.ts';
import { kvBytesPerRow } from '../../../models/hstu/bundle.ts';
import { EncoderEngine } from '../../../models/worker/engine.ts';
import type { EncodeRequest, EncodeResult, EncodeSegment } from '../../../schemas/encoding.ts';
import { PipelineError } from '../../../schemas/errors.ts';
import { Deviation } from '../../support/deviation.ts';
import { prefix, segmentOf, someWindow, type Window } from '../../support/encode-segments.ts';
import { referenceRows } from '../../support/reference-hstu.ts';
import { CACHEABLE, MAX_LENGTH, VOCABULARY } from '../bundles.ts';
import { callsOf, historyArbitrary, stepsArbitrary } from '../encode-script.ts';

const bundle = CACHEABLE['plain']!;
const D = bundle.config.dimension;
const TOLERANCE = 1e-5;

const open: HstuEncoder[] = [];
function start(options: EncoderOptions = {}): HstuEncoder {
  const encoder = new HstuEncoder(bundle, { kvBudgetBytes: 2 ** 20, ...options });
  open.push(encoder);
  return encoder;
}
afterEach(async () => {
  await Promise.all(open.splice(0).map((encoder) => encoder.close()));
});

const window = someWindow(20, VOCABULARY);
const request = (userId: string, n = 10, of: Window = window): EncodeRequest => ({
  userId,
  segments: [segmentOf(prefix(of, n))],
});
const truth = (n: number, of: Window = window): Float64Array => referenceRows(bundle, prefix(of, n), of.timesS[n - 1]!);
/** More than a worker can answer before it is killed. */
const CROWD = Array.from({ length: 400 }, (_, i) => request(`one of many ${i}`, 20));
const outcomes = (results: readonly EncodeResult[]) => results.map(({ segments }) => segments.map(({ outcome }) => outcome));
const failure = (promise: Promise<unknown>): Promise<PipelineError> =>
  promise.then(
    () => Promise.reject(new Error('it answered')),
    (error: unknown) => {
      expect(error).toBeInstanceOf(PipelineError);
      return error as PipelineError;
    },
  );
function expectTruth({ segments }: EncodeResult, n: number): void {
  new Deviation().check(segments[0]!.rows, truth(n), D, TOLERANCE, 'rows');
}

describe('HstuEncoder', () => {
  it('gives the same rows with one, two or three workers', { timeout: 60_000 }, async ({ annotate }) => {
    const deviation = new Deviation();
    const encoders = [1, 2, 3].map((workers) =>
      start({ workers, kvBudgetBytes: workers * 30_000, pageLength: 4, prefillRows: 16 }),
    );
    const uncached = new EncoderEngine(bundle, { kvBudgetBytes: 0 });
    const users = 6;
    const steps = stepsArbitrary(['append', 'insert', 'slide', 'query', 'forget'], {
      vocabulary: VOCABULARY,
      users,
      maxSteps: 20,
    });
    const histories = fc.array(historyArbitrary(VOCABULARY, MAX_LENGTH), { minLength: users, maxLength: users });
    const property = fc.asyncProperty(steps, histories, async (script, before) => {
      for (const { forget, requests } of callsOf(script, before, MAX_LENGTH)) {
        await Promise.all(encoders.flatMap((encoder) => forget.map((userId) => encoder.forget(userId))));
        const segments = requests.flatMap((one) => one.segments);
        const expected = await uncached.encode(segments.map((segment, i) => ({ userId: `${i}`, segments: [segment] })));
        for (const answer of await Promise.all(encoders.map((encoder) => encoder.encode(requests)))) {
          expect(answer.map(({ userId }) => userId)).toEqual(requests.map(({ userId }) => userId));
          for (const [i, { rows }] of answer.flatMap((one) => one.segments).entries())
            deviation.check(rows, expected[i]!.segments[0]!.rows, D, TOLERANCE, `segment ${i}`);
        }
      }
      for (const encoder of encoders) for (let user = 0; user < users; user++) await encoder.forget(`user ${user}`);
    });
    await fc.assert(property, { numRuns: 25 });
    for (const [i, encoder] of encoders.entries())
      expect(await encoder.stats()).toMatchObject({ workers: i + 1, users: 0, restarts: 0, kvBytesUsed: 0 });
    await uncached.release();
    await annotate(`${deviation}`);
  });

  it('carries out the calls of a user in the order they are made, without waiting for answers', async () => {
    const encoder = start({ workers: 2 });
    const answers = await Promise.all(
      Array.from({ length: 19 }, (_, i) => i + 1).flatMap((n) =>
        ['a', 'b', 'c'].map((userId) =>
          encoder.encode([{ userId, segments: [segmentOf(prefix(window, n), { from: Math.max(0, n - 2) })] }]),
        ),
      ),
    );
    // In any other order some call would meet rows that are not there yet, and compute more than two.
    const costs = answers.map(([answer]) => answer!.segments[0]!.rowsComputed);
    expect(costs).toEqual([1, 1, 1, ...new Array(54).fill(2)]);
    const stats = await encoder.stats();
    expect(stats).toMatchObject({
      segments: 57,
      rowsComputed: 111,
      users: 3,
      restarts: 0,
      evictions: 0,
      outcomes: { hit: 54, cold: 3 },
    });
  });

  it('answers no request with no result', async () => {
    expect(await start().encode([])).toEqual([]);
    expect(await start({ workers: 2 }).encode([])).toEqual([]);
    expect(await start().score([])).toEqual([]);
  });

  it('shares the scores among its workers, each of which gives the same', async () => {
    const encoder = start({ workers: 2 });
    const asked = {
      rows: Float32Array.from(truth(5).slice(-D)),
      targets: Int32Array.of(3),
      seen: new Int32Array(0),
      seenCount: Int32Array.of(0),
      topK: 5,
    };
    const [one, two] = await Promise.all([encoder.score([asked]), encoder.score([asked])]);
    expect(one).toEqual(two);
    expect(one[0]!.topEntities).toHaveLength(5);
  });

  it('forgets a user', async () => {
    const encoder = start({ workers: 2 });
    await encoder.encode([request('a'), request('b')]);
    expect(await encoder.forget('a')).toBe(true);
    expect(await encoder.forget('a')).toBe(false);
    expect(outcomes(await encoder.encode([request('a'), request('b')]))).toEqual([['cold'], ['hit']]);
  });

  it('starts and disposes of two workers, a hundred runs each', { timeout: 60_000 }, async () => {
    const encoder = start({ workers: 2 });
    const users = Array.from({ length: 6 }, (_, i) => `user ${i}`);
    for (let run = 0; run < 100; run++) {
      const n = 1 + (run % 20);
      const [result] = await encoder.encode(users.map((userId) => request(userId, n)));
      expectTruth(result!, n);
    }
    expect(await encoder.stats()).toMatchObject({ segments: 600, restarts: 0 });
    await encoder.close();
    expect(await failure(encoder.encode([request('a')]))).toMatchObject({ code: 'ENCODER_CLOSED' });
  });
});

describe('a request that cannot be', () => {
  const of = (change: Partial<EncodeSegment>): EncodeRequest => ({
    userId: 'mallory',
    segments: [{ ...segmentOf(prefix(window, 10)), ...change }],
  });
  const long = someWindow(MAX_LENGTH + 1, VOCABULARY);

  it.each<[string, EncodeRequest, string]>([
    [
      'no tokens',
      of(segmentOf({ entities: [], timesS: [] }, { queryTimeS: 0 })),
      `a window of 0 tokens; allowed: 1 to ${MAX_LENGTH}`,
    ],
    ['too many tokens', of(segmentOf(long)), `a window of ${MAX_LENGTH + 1} tokens; allowed: 1 to ${MAX_LENGTH}`],
    ['entity 0', of({ entities: new Int32Array(10) }), `entity rows outside 1 to ${VOCABULARY}`],
    [
      'an entity beyond the vocabulary',
      of({ entities: new Int32Array(10).fill(VOCABULARY + 1) }),
      `entity rows outside 1 to ${VOCABULARY}`,
    ],
    ['a negative entity', of({ entities: new Int32Array(10).fill(-1) }), `entity rows outside 1 to ${VOCABULARY}`],
    ['times for other tokens', of({ timesS: new Float64Array(9) }), '9 times for 10 tokens'],
    ['digests of other pages', of({ pageDigests: new Uint32Array(2) }), '1 page digests for 10 tokens'],
    ['no wanted row', of({ from: 10 }), 'rows wanted from 10 of 10'],
    ['rows before the first', of({ from: -1 }), 'rows wanted from -1 of 10'],
  ])('%s: refused, the user named, and the worker lives on', async (_, invalid, message) => {
    const encoder = refusing();
    const error = await failure(encoder.encode([request('alice'), invalid]));
    expect(error).toMatchObject({ code: 'ENCODER_FAILED', retriable: false, message: `request of user mallory: ${message}` });
    const [result] = await encoder.encode([request('alice')]);
    expectTruth(result!, 10);
    expect(await encoder.stats()).toMatchObject({ restarts: 0 });
  });

  /** One encoder for all of these: none may harm it. */
  let shared: HstuEncoder | undefined;
  function refusing(): HstuEncoder {
    shared ??= new HstuEncoder(bundle, { kvBudgetBytes: 2 ** 20 });
    return shared;
  }
  it('leaves an encoder that closes', () => refusing().close());
});

describe('a worker that dies', () => {
  it('fails what it was given, retriably; what waited meets a new worker without rows and the same numbers', async () => {
    const encoder = start();
    const [before] = await encoder.encode([request('a')]);
    const crowd = failure(encoder.encode(CROWD));
    // What comes in one turn is given to the thread at its end.
    await Promise.resolve();
    const pending = [crowd, failure(encoder.stats())];
    const waiting = encoder.encode([request('b')]);
    const crash = encoder.crash();
    for (const error of await Promise.all(pending)) {
      expect(error).toMatchObject({ code: 'WORKER_CRASHED', retriable: true });
      expect(error.message).toMatch(/^encoder worker 0 died \(exit code \d+\); its caches are gone, it restarts$/);
    }
    await crash;
    expectTruth((await waiting)[0]!, 10);
    const after = await encoder.encode([request('a')]);
    expect(outcomes(after)).toEqual([['cold']]);
    expect(after[0]!.segments[0]!.rows).toEqual(before!.segments[0]!.rows);
    expect(await encoder.stats()).toMatchObject({ restarts: 1, users: 2 });
  });

  it('leaves the other worker and its rows alone', async () => {
    const encoder = start({ workers: 2 });
    const users = Array.from({ length: 8 }, (_, i) => `user ${i}`);
    await encoder.encode(users.map((userId) => request(userId)));
    await encoder.crash(1);
    const again = outcomes(await encoder.encode(users.map((userId) => request(userId)))).flat();
    expect(new Set(again)).toEqual(new Set(['cold', 'hit']));
    expect(await encoder.stats()).toMatchObject({ restarts: 1, users: 8 });
  });

  it('fails a call over both workers as a whole; asked again, it succeeds', async () => {
    const encoder = start({ workers: 2 });
    await encoder.encode([request('a'), request('b'), request('c')]);
    const pending = failure(encoder.encode(CROWD));
    await encoder.crash(0);
    expect(await pending).toMatchObject({ code: 'WORKER_CRASHED' });
    expectTruth((await encoder.encode(CROWD)).at(-1)!, 20);
  });

  it('is given up when it dies too often', { timeout: 60_000 }, async () => {
    const encoder = start();
    for (let death = 0; death < 6; death++) await encoder.crash();
    const error = await failure(encoder.encode([request('a')]));
    expect(error).toMatchObject({
      code: 'ENCODER_FAILED',
      retriable: false,
      message: 'encoder worker 0 died 6 times within a minute; not restarted',
    });
    expect(await failure(encoder.stats())).toBe(error);
    await encoder.close();
  });
});

describe('a disk below the memory', () => {
  /** Room for two users. */
  const kvBudgetBytes = 20 * kvBytesPerRow(bundle.config);
  const users = Array.from({ length: 6 }, (_, i) => `user ${i}`);

  it('gives back who was evicted, of all threads, until the user is forgotten', async () => {
    const folder = join(tmpdir(), 'hstu-encoder-test');
    const encoder = start({ workers: 2, kvBudgetBytes: 2 * kvBudgetBytes, disk: { folder, budgetBytes: 2 ** 20 } });
    for (const userId of users) await encoder.encode([request(userId)]);
    for (const userId of users) {
      const [answer] = await encoder.encode([{ userId, segments: [segmentOf(prefix(window, 11), { from: 9 })] }]);
      expect(answer!.segments[0]).toMatchObject({ outcome: 'hit', rowsComputed: 2 });
      new Deviation().check(answer!.segments[0]!.rows, truth(11).slice(-2 * D), D, TOLERANCE, userId);
    }
    const { disk, evictions } = await encoder.stats();
    expect(disk).toMatchObject({ bytesBudget: 2 ** 20, skipped: 0, corrupt: 0, spills: evictions });
    expect(disk!.restores).toBeGreaterThan(0);
    expect(await Promise.all(users.map((userId) => encoder.forget(userId)))).toEqual(users.map(() => true));
    expect(await encoder.stats()).toMatchObject({ users: 0, disk: { users: 0, bytesUsed: 0 } });
    expect(outcomes(await encoder.encode([request(users[0]!)]))).toEqual([['cold']]);
  });

  it('that fails is told of, and costs an encode', async () => {
    const failures: string[] = [];
    const onDiskFailure = (message: string) => void failures.push(message);
    // A file, where a folder is wanted.
    const disk = { folder: fileURLToPath(import.meta.url), budgetBytes: 2 ** 20 };
    const encoder = start({ kvBudgetBytes, disk, onDiskFailure });
    for (const userId of [...users, ...users]) expectTruth((await encoder.encode([request(userId)]))[0]!, 10);
    expect(await encoder.stats()).toMatchObject({ disk: { users: 0, restores: 0 } });
    expect(failures).toEqual([expect.stringMatching(/^the KV cache on disk, .* are encoded anew$/)]);
  });
});

describe('close', () => {
  it('answers what was asked before, and refuses what comes after', async () => {
    const encoder = start({ workers: 2 });
    const users = Array.from({ length: 8 }, (_, i) => `user ${i}`);
    const asked = encoder.encode(users.map((userId) => request(userId)));
    const closed = encoder.close();
    for (const call of [encoder.encode([request('a')]), encoder.forget('a'), encoder.stats()])
      expect(await failure(call)).toMatchObject({
        code: 'ENCODER_CLOSED',
        message: expect.stringMatching(/^encoder worker \d is closed$/),
      });
    for (const result of await asked) expectTruth(result, 10);
    await closed;
    await encoder.close();
  });

  it('closes a worker that was never used, and one that just died', async () => {
    await start().close();
    const encoder = start();
    const crash = encoder.crash();
    await encoder.close();
    await crash;
  });
});
