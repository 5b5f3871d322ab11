/** Requests for candidates against a real broker, among actions and through a kill. */
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type Bundle, loadBundle, writeBundle } from '../../models/hstu/bundle.ts';
import { Tokenizer } from '../../models/hstu/tokenizer.ts';
import { EncoderEngine } from '../../models/worker/engine.ts';
import { UserSequence } from '../../operators/index.ts';
import type { UserAction } from '../../schemas/action.ts';
import type { CandidateRequest } from '../../schemas/avro/requests.ts';
import type { CandidateScores } from '../../schemas/output.ts';
import { RANKING } from '../models/bundles.ts';
import { kafkaIsPossible, randomName, sharedKafka } from '../support/kafka-broker.ts';
import { liveEvents } from '../support/live-bundle.ts';
import { LiveWorld } from '../support/live-world.ts';

const FOLDER = fileURLToPath(new URL('../../.hstu/live-tests/ranking-bundle', import.meta.url));
const ROUNDS = 12;
const EVENTS = 120;
const VOCABULARY = 50;

/** Of every fourth an unknown user, of every fifth the whole catalogue, of every seventh past its deadline. */
function requestsOf(round: number, newestMs: number): CandidateRequest[] {
  return Array.from({ length: 15 }, (_, i) => {
    const n = 15 * round + i;
    return {
      requestId: `r${n}`,
      userId: n % 4 === 3 ? `stranger-${n}` : `user-${n % 6}`,
      entities:
        n % 5 === 4 ? [] : Array.from({ length: 1 + (n % 20) }, (_unused, c) => `item:${1 + ((n * 7 + c * 3) % VOCABULARY)}`),
      ...(n % 5 === 4 && { topK: 5 }),
      queryTimeMs: newestMs + 1_000 * (n % 50),
      ...(n % 7 === 6 && { deadlineMs: 1_000 }),
    };
  });
}

describe.skipIf(!kafkaIsPossible)('candidate requests, live', { timeout: 120_000 }, () => {
  let bundle: Bundle;
  let world: LiveWorld;
  let engine: EncoderEngine;

  beforeAll(async () => {
    const path = join(FOLDER, String(process.pid));
    await mkdir(path, { recursive: true });
    await writeBundle(path, RANKING['STU, both biases, layernorm output']!);
    const [loaded, broker] = await Promise.all([loadBundle(path), sharedKafka()]);
    bundle = loaded;
    // Its users see the whole small catalogue.
    const settings = { scores: { seenFilter: false } };
    world = await LiveWorld.create({ broker, name: randomName('requests'), bundlePath: path, bundle, settings });
    engine = new EncoderEngine(bundle, { kvBudgetBytes: 0 });
  }, 180_000);
  afterAll(async () => {
    await world?.close();
    await engine?.release();
  });

  /** The largest |answered − scored in full from the user's first `version` tokens|, and what is wrong with the answer. */
  async function judge(answer: CandidateScores, request: CandidateRequest, actions: readonly UserAction[]) {
    const { userId } = request;
    const sequence = new UserSequence({ window: bundle.config.window, seenLimit: 4_096 });
    const tokenizer = new Tokenizer(bundle);
    for (const action of actions) {
      if (action.userId !== userId || sequence.version === answer.version) continue;
      const token = tokenizer.token(action);
      if (token.kind === 'token') sequence.add(action.eventId, action.eventTimeMs, token.entity);
    }
    const window = sequence.snapshot();
    const problems: string[] = [];
    if (answer.lineage.sequenceDigest !== sequence.digest) problems.push(`${answer.requestId}: made of other tokens`);
    if (answer.coldStart !== (answer.version === 0 ? true : undefined))
      problems.push(`${answer.requestId}: wrong about its start`);
    const named = new Set(request.entities);
    const asked = named.size === 0 ? answer.candidates.length === request.topK : answer.candidates.length === named.size;
    if (!asked) problems.push(`${answer.requestId}: ${answer.candidates.length} candidates`);
    const candidates = Int32Array.from(answer.candidates, ({ entity }) => tokenizer.rowOf(entity)!);
    const segment = { ...window, queryTimeS: Math.floor(answer.queryTimeMs! / 1000) };
    const [full] = await engine.scoreCandidatesInFull([{ userId, segment, candidates }]);
    let maxDelta = 0;
    for (const [i, { entity, score }] of answer.candidates.entries()) {
      maxDelta = Math.max(maxDelta, Math.abs(score - full!.combined[i]!));
      for (const [task, probabilities] of Object.entries(full!.tasks))
        maxDelta = Math.max(maxDelta, Math.abs(probabilities[i]! - answer.tasks![task]![i]!));
      if (named.size > 0 && !named.has(entity)) problems.push(`${answer.requestId}: ${entity} was not asked for`);
    }
    return { maxDelta, problems };
  }

  it('are answered once, with the scores of a full encode, through a kill -9; the state is that of the actions alone', async () => {
    const actions = liveEvents({ events: ROUNDS * EVENTS, users: 12 }).map((action, i) => ({
      ...action,
      entity: `item:${1 + (i % VOCABULARY)}`,
    }));
    let instance = await world.start('a');
    await instance.untilRunning();
    const requests: CandidateRequest[] = [];
    for (let round = 0; round < ROUNDS; round++) {
      const events = actions.slice(round * EVENTS, (round + 1) * EVENTS);
      const asked = requestsOf(round, events[0]!.eventTimeMs);
      requests.push(...asked);
      await Promise.all([world.produce(events), world.request(asked)]);
      if (round === ROUNDS / 2) {
        await instance.kill();
        instance = await world.start('a');
      }
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
    const { topics } = world.config.kafka;
    await world.untilConsumed(actions.length);
    await world.untilConsumed(requests.length, 60_000, topics.candidateRequests);

    const scores = (await world.outputs(topics.candidateScores, 'CandidateScores')).map(({ value }) => value!);
    const answers = scores.filter(({ requestId }) => requestId !== undefined);
    const expected = requests.filter(({ deadlineMs }) => deadlineMs === undefined);
    expect(answers.map(({ requestId }) => requestId).sort()).toEqual(expected.map(({ requestId }) => requestId).sort());

    const problems: string[] = [];
    let maxDelta = 0;
    for (const answer of answers) {
      const judged = await judge(answer, expected.find(({ requestId }) => requestId === answer.requestId)!, actions);
      problems.push(...judged.problems);
      maxDelta = Math.max(maxDelta, judged.maxDelta);
    }
    expect(problems).toEqual([]);
    expect(maxDelta).toBeLessThanOrEqual(1e-4);
    expect(answers.filter(({ coldStart }) => coldStart).length).toBeGreaterThan(20);
    expect(answers.filter(({ version }) => version > 40).length).toBeGreaterThan(20);
    expect((await world.verify(actions)).problems).toEqual([]);
    expect(await world.verifyState(actions)).toEqual([]);
    expect(await world.outputs(topics.deadLetters, 'DeadLetter')).toEqual([]);
  });
});
