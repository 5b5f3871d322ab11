/** What training promises: the exported ranking bundle, in the runtime, gives the scores that PyTorch gave in float64. */
import { execFile } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { describe, expect, it } from 'vitest';
import { type Bundle, loadBundle } from '../../models/hstu/bundle.ts';
import { Tokenizer } from '../../models/hstu/tokenizer.ts';
import { EncoderEngine } from '../../models/worker/engine.ts';
import { Deviation } from '../support/deviation.ts';
import { segmentOf } from '../support/encode-segments.ts';

interface RankingCase {
  readonly user: string;
  readonly windowStart: number;
  readonly events: readonly { action: string; entity: string; value?: number; timeS: number }[];
  readonly queryTimeS: number;
  readonly candidates: readonly string[];
  readonly tasks: Readonly<Record<string, readonly number[]>>;
  readonly combined: readonly number[];
  readonly top10: readonly string[];
  readonly top10Scores: readonly number[];
}

const TOLERANCE = 1e-5;
/** Rows of the retrieval output are not normalised: their length is `sqrt(D)`. */
const RETRIEVAL_TOLERANCE = 1e-4;
const path = (name: string) => fileURLToPath(new URL(`../../${name}`, import.meta.url));
const EXAMPLE = path('examples/movielens/ranking');
const SCRIPT = path('models/training/train-ranking.sh');

describe('examples/movielens/ranking', () => {
  it('scores candidates as PyTorch does, from actions as the stream brings them', async ({ annotate }) => {
    const { tasks, retrieval } = await check(EXAMPLE);
    await annotate(`tasks ${tasks}, retrieval ${retrieval}`);
  });

  it('notices another history and another time: they change the scores', async () => {
    const [bundle, cases] = await open(EXAMPLE);
    const { events, ...rest } = cases[0]!;
    const others = [
      { ...rest, events: events.slice(1) },
      { ...rest, events, queryTimeS: rest.queryTimeS + 86_400 * 400 },
    ];
    for (const changed of others) {
      const far = new Deviation();
      await checkTasks(bundle, changed, Number.POSITIVE_INFINITY, far);
      expect(far.max).toBeGreaterThan(10 * TOLERANCE);
    }
  });

  it('ranks by several tasks, and says how good it is', async () => {
    const { config } = await loadBundle(EXAMPLE);
    expect(config.ranking?.tasks.map(({ name }) => name)).toEqual(['like', 'love', 'tag']);
    expect(config.training).toMatchObject({ metrics: { all: { model: { like: { AUC: expect.any(Number) } } } } });
  });
});

// The environment of training is not part of the package, and takes minutes to make.
it.skipIf(!existsSync(path('models/training/.venv/installed.txt')))(
  'train-ranking.sh --smoke makes bundles that the runtime loads and agrees with',
  { timeout: 240_000 },
  async () => {
    const folder = await mkdtemp(join(tmpdir(), 'train-ranking-'));
    try {
      const options = ['--smoke', '--out', join(folder, 'bundle'), '--stream', join(folder, 'blocks')];
      const { stdout } = await promisify(execFile)('nice', ['-n', '19', 'bash', SCRIPT, ...options]);
      expect(stdout).toContain('| logistic regression on counts |');
      await check(join(folder, 'bundle'));
      const blocks = await Promise.all([0, 1, 2, 3].map((block) => loadBundle(join(folder, 'blocks', `block-${block}`))));
      for (const [i, { entities, digest }] of blocks.slice(1).entries()) {
        const earlier = blocks[i]!;
        expect(entities.slice(0, earlier.entities.length)).toEqual(earlier.entities);
        expect(digest).not.toBe(earlier.digest);
      }
    } finally {
      await rm(folder, { recursive: true });
    }
  },
);

async function open(folder: string): Promise<[Bundle, readonly RankingCase[]]> {
  const { cases } = JSON.parse(await readFile(join(folder, 'bundle-check.json'), 'utf8')) as { cases: RankingCase[] };
  return [await loadBundle(folder), cases];
}

async function check(folder: string): Promise<{ tasks: Deviation; retrieval: Deviation }> {
  const [bundle, cases] = await open(folder);
  const [tasks, retrieval] = [new Deviation(), new Deviation()];
  expect(cases.length).toBeGreaterThan(0);
  for (const one of cases) {
    await checkTasks(bundle, one, TOLERANCE, tasks);
    await checkTop(bundle, one, retrieval);
  }
  return { tasks, retrieval };
}

async function checkTasks(bundle: Bundle, one: RankingCase, tolerance: number, deviation: Deviation): Promise<void> {
  const tokenizer = new Tokenizer(bundle);
  const engine = new EncoderEngine(bundle, { kvBudgetBytes: 16 * 2 ** 20 });
  const candidates = Int32Array.from(one.candidates, (entity) => tokenizer.rowOf(entity)!);
  const [scored] = await engine.scoreCandidates([{ userId: one.user, segment: segmentOfCase(tokenizer, one), candidates }]);
  for (const [task, expected] of Object.entries(one.tasks))
    deviation.check(scored!.tasks[task]!, expected, 1, tolerance, `user ${one.user}, ${task}`);
  deviation.check(scored!.combined, one.combined, 1, 3 * tolerance, `user ${one.user}, combined`);
  await engine.release();
}

/** The same bundle retrieves: the newest row by dot product over the catalogue. */
async function checkTop(bundle: Bundle, one: RankingCase, deviation: Deviation): Promise<void> {
  if (bundle.config.retrieval === false || one.events.length === 0) return;
  const tokenizer = new Tokenizer(bundle);
  const engine = new EncoderEngine(bundle, { kvBudgetBytes: 16 * 2 ** 20 });
  const segment = segmentOfCase(tokenizer, one);
  const [encoded] = await engine.encode([{ userId: one.user, segments: [{ ...segment, from: one.events.length - 1 }] }]);
  const nothing = Int32Array.of(0);
  const [top] = await engine.score([
    { rows: encoded!.segments[0]!.rows, targets: nothing, seen: new Int32Array(0), seenCount: nothing, topK: one.top10.length },
  ]);
  expect(Array.from(top!.topEntities, (row) => tokenizer.entityOf(row))).toEqual(one.top10);
  deviation.check(top!.topScores, one.top10Scores, 1, RETRIEVAL_TOLERANCE, `user ${one.user}, top 10`);
  await engine.release();
}

function segmentOfCase(tokenizer: Tokenizer, { events, windowStart, queryTimeS }: RankingCase) {
  const entities = events.map((event) => {
    const token = tokenizer.token(event);
    if (token.kind !== 'token') throw new Error(`${event.action} on ${event.entity} is no token: ${JSON.stringify(token)}`);
    return token.entity;
  });
  return segmentOf({ windowStart, entities, timesS: events.map(({ timeS }) => timeS) }, { queryTimeS });
}
