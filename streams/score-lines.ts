/** Scores candidates for users given as JSON lines: the library call behind `hstu-streams score`. */
import { lastValueFrom } from 'rxjs';
import { z } from 'zod';
import type { HstuEncoder } from '../models/encoder.ts';
import type { Bundle } from '../models/hstu/bundle.ts';
import {
  answerRequests,
  InMemorySequenceStore,
  type ModelHeads,
  type SequenceRequestsOptions,
  sequenceRequests,
  UserSequence,
} from '../operators/index.ts';
import type { RequestAnswer, SequencedRequest } from '../schemas/batch.ts';
import { catalogueFilterSchema } from '../schemas/catalogue-filter.ts';
import { PipelineError } from '../schemas/errors.ts';
import type { LeftOutCandidate } from '../schemas/output.ts';
import { pipelineModel } from './pipeline-model.ts';
import { type LineFault, lineTokens, readLine, userLine } from './user-lines.ts';

export interface ScoreLinesOptions {
  /** Score candidates outside the vocabulary by their shared row, where the bundle has such rows. @default 'hash' */
  readonly unknownCandidates?: 'hash' | 'leave-out';
  /** Leave out of the catalogue's best what the user has seen. @default true */
  readonly seenFilter?: boolean;
  /** Retrieved before ranking, for the catalogue's best. @default 5 × the line's `topK` */
  readonly retrieve?: number;
  /** Score with the task heads where the bundle has some; else by dot product, the first stage of two alone. @default true */
  readonly rank?: boolean;
}

export interface ScoredLine {
  readonly userId?: string;
  /** Best first; `tasks` where the bundle has task heads. */
  readonly candidates?: readonly {
    readonly entity: string;
    readonly score: number;
    readonly tasks?: Readonly<Record<string, number>>;
  }[];
  readonly leftOut?: readonly LeftOutCandidate[];
  /** No event could be encoded: scored without a history. */
  readonly coldStart?: boolean;
  /** Faults of the line, or of single events, which are passed over. */
  readonly deadLetters?: readonly LineFault[];
}

const scoreLine = userLine.extend({
  candidates: z.array(z.string().min(1)).max(10_000).default([]),
  topK: z.int().positive().max(1_000).optional(),
  deny: z.array(z.string().min(1)).max(10_000).optional(),
  filter: catalogueFilterSchema.optional(),
});

/** A line that can be scored. */
interface Prepared {
  readonly userId: string;
  readonly asked: SequencedRequest;
  readonly faults: readonly LineFault[];
}

export class LineScorer {
  readonly #bundle: Bundle;
  readonly #encoder: HstuEncoder;
  readonly #options: ScoreLinesOptions;
  readonly #model: ReturnType<typeof pipelineModel>;
  readonly #heads: ModelHeads;

  /** @throws PipelineError `CONFIG_INVALID` for `rank: false` with a bundle that does not retrieve */
  constructor(bundle: Bundle, encoder: HstuEncoder, options: ScoreLinesOptions = {}) {
    this.#bundle = bundle;
    this.#encoder = encoder;
    this.#options = options;
    this.#model = pipelineModel(bundle);
    const { retrieval, ranking } = this.#model.heads;
    this.#heads = { retrieval, ranking: ranking && (options.rank ?? true) };
    if (!retrieval && !this.#heads.ranking)
      throw new PipelineError('CONFIG_INVALID', `rank: false; bundle ${bundle.config.name} does not retrieve, it can only rank`);
  }

  /**
   * One result a line, in order: the same answers that the stream gives to requests over the same history. A faulty line gives
   * its fault, never an exception.
   */
  async score(lines: readonly string[]): Promise<ScoredLine[]> {
    const prepared = lines.map((line, i) => this.#prepare(line, `line-${i}`));
    const asked = prepared.flatMap((line) => ('asked' in line ? [line.asked] : []));
    const answers = await lastValueFrom(
      answerRequests(asked, {
        encoder: this.#encoder,
        heads: this.#heads,
        vocabularySize: this.#model.vocabularySize,
        popularity: this.#model.popularity,
        entityOf: (row) => this.#model.tokenizer.entityOf(row),
        retrieve: this.#options.retrieve,
        now: Date.now,
      }),
    );
    await Promise.all(asked.map(({ request }) => this.#encoder.forget(request.userId)));
    let next = 0;
    return prepared.map((line) => ('asked' in line ? resultOf(line, answers[next++]!) : { deadLetters: line.fault }));
  }

  /** `key` names the history in the cache: two lines of one user are two. */
  #prepare(line: string, key: string): Prepared | { readonly fault: readonly LineFault[] } {
    const read = readLine(scoreLine, line);
    if ('fault' in read) return read;
    const { userId, events, candidates, queryTimeMs, topK, deny, filter } = read.value;
    const { actions, window } = this.#bundle.config;
    const { tokens, faults } = lineTokens(events, this.#model.tokenizer, actions.encoded[0]!);
    const store = new InMemorySequenceStore();
    for (const [i, { entity, second, timeMs }] of tokens.entries())
      store
        .getOrCreate(key, () => new UserSequence({ window, seenLimit: Math.max(1, tokens.length) }))
        .add(`${i}`, timeMs, entity, second);
    const request = {
      requestId: key,
      userId: key,
      entities: candidates,
      queryTimeMs: queryTimeMs ?? tokens.at(-1)?.timeMs ?? 0,
      position: { topic: 'lines', partition: 0, offset: 0 },
      ...(topK !== undefined && { topK }),
      ...(deny !== undefined && { deny }),
      ...(filter !== undefined && { filter }),
    };
    const { unknownCandidates = 'hash', seenFilter = true } = this.#options;
    const { tokenizer: vocabulary, fields } = this.#model;
    const allowed: SequenceRequestsOptions['allowed'] = (wanted) => wanted && fields.allowed(wanted);
    const [asked] = sequenceRequests([request], store, 0, { vocabulary, unknownCandidates, seenFilter, allowed });
    return { userId, asked: asked!, faults };
  }
}

function resultOf({ userId, asked, faults }: Prepared, { disposition, candidates, tasks }: RequestAnswer): ScoredLine {
  const named = Object.entries(tasks ?? {});
  return {
    userId,
    candidates: candidates.map((candidate, i) => ({
      ...candidate,
      ...(tasks !== undefined && { tasks: Object.fromEntries(named.map(([task, values]) => [task, values[i]!])) }),
    })),
    ...(asked.leftOut.length > 0 && { leftOut: asked.leftOut }),
    ...(disposition === 'cold-start' && { coldStart: true }),
    ...(faults.length > 0 && { deadLetters: faults }),
  };
}
