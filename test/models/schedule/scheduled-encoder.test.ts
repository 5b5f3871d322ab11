/** What the scheduler makes of a real encoder's calls: other company, the same numbers, and nothing lost with a thread. */
import { afterEach, expect, it } from 'vitest';
import { type EncoderOptions, HstuEncoder } from '../../../models/encoder.ts';
import {
  type CallTerms,
  type EncodeRequest,
  type EncodeResult,
  type EncoderRun,
  WORK_CLASSES,
} from '../../../schemas/encoding.ts';
import { PipelineError } from '../../../schemas/errors.ts';
import { Deviation } from '../../support/deviation.ts';
import { prefix, segmentOf, someWindow } from '../../support/encode-segments.ts';
import { referenceRows } from '../../support/reference-hstu.ts';
import { CACHEABLE, VOCABULARY } from '../bundles.ts';

const bundle = CACHEABLE['plain']!;
const LENGTH = 24;
const USERS = 12;
const windows = Array.from({ length: USERS }, (_, i) => someWindow(LENGTH, VOCABULARY, i));

const open: HstuEncoder[] = [];
function start(options: EncoderOptions = {}) {
  const runs: EncoderRun[] = [];
  const encoder = new HstuEncoder(bundle, { kvBudgetBytes: 2 ** 20, onRun: (run) => runs.push(run), ...options });
  open.push(encoder);
  return { encoder, runs };
}
afterEach(async () => {
  await Promise.all(open.splice(0).map((encoder) => encoder.close()));
});

/** Every user's window grows by one to three events a call, all calls made at once, on all kinds of terms. */
function* calls(): Generator<{
  readonly request: EncodeRequest;
  readonly n: number;
  readonly user: number;
  readonly terms: CallTerms;
}> {
  for (let n = 2, call = 0; n <= LENGTH; n += 1 + (n % 3))
    for (let user = 0; user < USERS; user++, call++) {
      const request = { userId: `user ${user}`, segments: [segmentOf(prefix(windows[user]!, n))] };
      yield { request, n, user, terms: { workClass: WORK_CLASSES[call % 3]!, key: user % 4 } };
    }
}

/** Answers of `calls`, in their order. */
async function expectTruth(answers: readonly (readonly EncodeResult[])[]): Promise<void> {
  const deviation = new Deviation();
  for (const [i, { n, user }] of [...calls()].entries()) {
    const { rows } = answers[i]![0]!.segments[0]!;
    const truth = referenceRows(bundle, prefix(windows[user]!, n), windows[user]!.timesS[n - 1]!);
    deviation.check(rows, truth, bundle.config.dimension, 1e-5, `user ${user}, ${n} events`);
  }
}

it('gives the numbers of a full encode, whether calls go together or each by itself', async () => {
  const [together, alone] = [start(), start({ schedule: { maxRunUsers: 1 } })];
  for (const { encoder } of [together, alone])
    await expectTruth(await Promise.all([...calls()].map(({ request, terms }) => encoder.encode([request], terms))));
  const made = [...calls()].length;
  expect(alone.runs).toHaveLength(made);
  expect(together.runs.length).toBeLessThan(made / 4);
  expect(together.runs.reduce((users, run) => users + run.users, 0)).toBe(made);
  expect((await together.encoder.stats()).outcomes.hit).toBeGreaterThan(0);
});

it('a thread that dies in the midst fails what it held, retriably; made again, every call gets its numbers', async () => {
  const { encoder } = start({ workers: 2, schedule: { maxRunUsers: 4 } });
  let again = 0;
  const encode = async (request: EncodeRequest, terms: CallTerms): Promise<readonly EncodeResult[]> => {
    try {
      return await encoder.encode([request], terms);
    } catch (error) {
      if (!(error instanceof PipelineError) || !error.retriable) throw error;
      again += 1;
      return encode(request, terms);
    }
  };
  const asked = [...calls()].map(({ request, terms }) => encode(request, terms));
  await Promise.race(asked);
  const waiting = encoder.load;
  await encoder.crash();
  await expectTruth(await Promise.all(asked));
  expect(again).toBeGreaterThan(0);
  // What was not in the thread was not lost with it.
  expect(again).toBeLessThan(WORK_CLASSES.reduce((sum, each) => sum + waiting[each].waiting, 0));
  expect((await encoder.stats()).restarts).toBe(1);
});

it('a user who is forgotten takes along what waited', async () => {
  const { encoder } = start({ schedule: { maxRunUsers: 1 } });
  const made = [...calls()].map(({ request, terms }) => encoder.encode([request], terms));
  expect(await encoder.forget('user 3')).toBe(true);
  await Promise.all(made);
  expect(await encoder.cachedUsers()).not.toContain('user 3');
  expect(await encoder.cachedUsers()).toHaveLength(USERS - 1);
});
