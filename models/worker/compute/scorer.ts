/** Ranks and top-K over the entity table: the retrieval score of a batch of embeddings. */
import { Tensor } from 'onnxruntime-node';
import { entityRows } from '../../../schemas/bundle-config.ts';
import type { AllowedRows, ListIndexStats, ScoreRequest, ScoreResult } from '../../../schemas/encoding.ts';
import { PipelineError } from '../../../schemas/errors.ts';
import type { CandidateIndex } from '../../catalogue/candidate-index.ts';
import { type CatalogueOverlay, isCandidateRow } from '../../catalogue/overlay.ts';
import type { Bundle } from '../../hstu/bundle.ts';
import { rowNorm } from '../../hstu/row-norm.ts';
import { TokenCode } from '../../hstu/token-code.ts';
import { IndexedLists } from './indexed-lists.ts';
import { NewEntities } from './new-entities.ts';
import type { Sessions } from './sessions.ts';

/** Scores held at once, floats: bounds rows × vocabulary of one run. */
const MAX_SCORES = 512 * 1024;
/** And of a large vocabulary, whose table is dearer to read than scores are to hold, for so many rows: three times as fast at 300,000. */
const MAX_SCORES_OF_LARGE = 4 * 1024 * 1024;
const ROWS_OF_LARGE = 16;

/** Masks kept, each 4 bytes an entity. */
const MAX_MASKS = 8;

interface Row {
  readonly request: number;
  readonly row: number;
}

export class Scorer {
  #bundle: Bundle;
  readonly #sessions: Sessions;
  readonly #code: TokenCode;
  #newEntities: NewEntities | undefined;
  /** Added to every score of the vocabulary: `-∞` for what is retired. */
  #offered: Tensor;
  #indexed: IndexedLists | undefined;
  /** Of what lists may hold, by its key. */
  readonly #masks = new Map<string, Tensor>();

  constructor(bundle: Bundle, sessions: Sessions) {
    this.#bundle = bundle;
    this.#sessions = sessions;
    this.#code = new TokenCode(bundle.config);
    this.#newEntities = NewEntities.of(bundle);
    this.#offered = offeredMask(bundle);
  }

  /** From now on lists are of this catalogue. Between two calls only. */
  useCatalogue(catalogue: CatalogueOverlay): void {
    this.#bundle = { ...this.#bundle, catalogue };
    this.#newEntities = NewEntities.of(this.#bundle);
    this.#offered = offeredMask(this.#bundle);
    this.#indexed?.retire(catalogue.retired);
  }

  /**
   * From now on the best of the vocabulary are found by its index, but for what that cannot say. Ranks of targets stay exact, and so
   * do scores; new entities are looked at one by one. Between two calls only.
   *
   * @param sampleEvery of so many lists one is compared with the exact one; @default 256
   */
  useIndex(index: Pick<CandidateIndex, 'nearest' | 'size'>, sampleEvery?: number): void {
    this.#indexed = new IndexedLists({
      index,
      scoresOf: (rows, candidates) => this.#dotProducts(rows, candidates),
      dimension: this.#bundle.config.dimension,
      ...(sampleEvery !== undefined && { sampleEvery }),
    });
    this.#indexed.retire(this.#bundle.catalogue?.retired ?? []);
  }

  /** Undefined while lists are exact. */
  get indexStats(): ListIndexStats | undefined {
    return this.#indexed?.stats;
  }

  /** @throws PipelineError `ENCODER_FAILED` for a candidate that is no row of the table */
  async score(given: readonly ScoreRequest[]): Promise<ScoreResult[]> {
    for (const { candidates } of given) this.#requireRows(candidates);
    const requests = given.map((request) => this.#inVocabulary(request));
    const results = requests.map((request) => ({
      ranks: new Int32Array(request.targets.length),
      topEntities: new Int32Array(0),
      topScores: new Float32Array(0),
    }));
    const ranked: Row[] = [];
    const listed: Row[] = [];
    for (const [i, request] of requests.entries()) {
      for (let row = 0; row < request.targets.length; row++) if (request.targets[row]! > 0) ranked.push({ request: i, row });
      if (request.topK > 0 && request.targets.length > 0) listed.push({ request: i, row: request.targets.length - 1 });
    }
    await this.#inChunks(requests, ranked, 1, this.#offered, (row, above) => {
      results[row.request]!.ranks[row.row] = 1 + above;
    });
    const [scanned, sampled] = this.#listByIndex(requests, listed, results);
    const best = Math.min(Math.max(0, ...requests.map((request) => request.topK)), this.#bundle.config.vocabularySize);
    for (const [mask, rows] of this.#byMask(requests, scanned))
      await this.#inChunks(requests, rows, best, mask, (row, _above, entities, scores) => {
        Object.assign(results[row.request]!, bestOf(entities, scores, requests[row.request]!.topK));
      });
    for (const [mask, rows] of this.#byMask(requests, sampled))
      await this.#inChunks(requests, rows, best, mask, (row, _above, entities, scores) => {
        const exact = bestOf(entities, scores, requests[row.request]!.topK);
        this.#indexed!.compare(results[row.request]!.topEntities, exact.topEntities);
      });
    if (this.#newEntities !== undefined)
      for (const { request } of listed)
        Object.assign(results[request]!, this.#newEntities.among(results[request]!, requests[request]!));
    return results.map((result, i) => {
      const { candidates, rows } = requests[i]!;
      return candidates === undefined ? result : { ...result, candidateScores: this.#dotProducts(rows, candidates) };
    });
  }

  /** What the index gives, into `results`; returns the rows that must be scanned for, and those that are scanned for to compare. */
  #listByIndex(requests: readonly ScoreRequest[], listed: readonly Row[], results: ScoreResult[]): [Row[], Row[]] {
    const indexed = this.#indexed;
    if (indexed === undefined) return [[...listed], []];
    const scanned: Row[] = [];
    const sampled: Row[] = [];
    for (const row of listed) {
      const found = indexed.list(requests[row.request]!);
      if (found === undefined) scanned.push(row);
      else {
        Object.assign(results[row.request]!, found);
        if (indexed.sampled) sampled.push(row);
      }
    }
    return [scanned, sampled];
  }

  #requireRows(candidates: Int32Array | undefined): void {
    const outside = candidates?.find((row) => !isCandidateRow(row, this.#bundle));
    if (outside === undefined) return;
    const last = entityRows(this.#bundle.config) - 1;
    throw new PipelineError('ENCODER_FAILED', `candidate row ${outside}; allowed: 1 to ${last}, and the catalogue's own below 0`);
  }

  /** `e · E[c] / max(||E[c]||, 1e-6)` of each candidate `c`, where `e` is the last of `rows`. */
  #dotProducts(rows: Float32Array, candidates: Int32Array): Float32Array {
    const { dimension: D } = this.#bundle.config;
    const vocabulary = this.#bundle.tensors.get('entity_embedding')!.data;
    const embedding = rows.subarray(rows.length - D);
    return Float32Array.from(candidates, (candidate) => {
      const [table, from] = candidate < 0 ? [this.#bundle.catalogue!.rows, -candidate - 1] : [vocabulary, candidate];
      let product = 0;
      for (let d = 0; d < D; d++) product += embedding[d]! * table[from * D + d]!;
      return product / rowNorm(table, from * D, D);
    });
  }

  /** Targets and seen entities as rows of the vocabulary; 0 for what has none. */
  #inVocabulary(request: ScoreRequest): ScoreRequest {
    const { tokens, outOfVocabulary, vocabularySize } = this.#bundle.config;
    if (tokens === undefined && outOfVocabulary === undefined) return request;
    const row = (token: number) => {
      const entity = this.#code.entityOf(token);
      return entity > vocabularySize ? 0 : entity;
    };
    return { ...request, targets: request.targets.map(row), seen: request.seen.map(row) };
  }

  /** Rows whose lists may hold the same of the vocabulary, together. */
  #byMask(requests: readonly ScoreRequest[], rows: readonly Row[]): ReadonlyMap<Tensor, Row[]> {
    const groups = new Map<Tensor, Row[]>();
    for (const row of rows) {
      const { allowed } = requests[row.request]!;
      const mask = allowed === undefined ? this.#offered : this.#maskOf(allowed);
      const group = groups.get(mask);
      if (group === undefined) groups.set(mask, [row]);
      else group.push(row);
    }
    return groups;
  }

  /** What is allowed is offered too: who made it knows what is retired. */
  #maskOf({ key, rows }: AllowedRows): Tensor {
    let mask = this.#masks.get(key);
    if (mask === undefined) {
      const { vocabularySize: V } = this.#bundle.config;
      mask = new Tensor(
        'float32',
        Float32Array.from({ length: V }, (_, i) => (rows[i + 1] === 1 ? 0 : -Infinity)),
        [1, V],
      );
    }
    // The most recently used last; the first goes when there are too many.
    this.#masks.delete(key);
    this.#masks.set(key, mask);
    if (this.#masks.size > MAX_MASKS) this.#masks.delete(this.#masks.keys().next().value!);
    return mask;
  }

  async #inChunks(
    requests: readonly ScoreRequest[],
    rows: readonly Row[],
    best: number,
    mask: Tensor,
    take: (row: Row, above: number, entities: BigInt64Array, scores: Float32Array) => void,
  ): Promise<void> {
    const { vocabularySize: V, dimension: D } = this.#bundle.config;
    const large = Math.min(ROWS_OF_LARGE, Math.floor(MAX_SCORES_OF_LARGE / V));
    const chunk = Math.max(1, large, Math.floor(MAX_SCORES / V));
    for (let start = 0; start < rows.length; start += chunk) {
      const part = rows.slice(start, start + chunk);
      const embeddings = new Float32Array(part.length * D);
      const targets = new BigInt64Array(part.length);
      for (const [r, { request, row }] of part.entries()) {
        const from = requests[request]!;
        embeddings.set(from.rows.subarray(row * D, (row + 1) * D), r * D);
        const target = from.targets[row]!;
        targets[r] = BigInt(Math.max(0, target - 1));
      }
      const hidden = hiddenPairs(requests, part);
      const session = await this.#sessions.score();
      const output = await session.run({
        rows: new Tensor('float32', embeddings, [part.length, D]),
        targets: new Tensor('int64', targets, [part.length, 1]),
        hidden: new Tensor('int64', hidden, [hidden.length / 2, 2]),
        offered: mask,
        best: new Tensor('int64', BigInt64Array.of(BigInt(best)), [1]),
      });
      const above = output['above']!.data as Int32Array;
      const entities = output['entities']!.data as BigInt64Array;
      const scores = output['scores']!.data as Float32Array;
      for (const [r, row] of part.entries())
        take(row, above[r]!, entities.subarray(r * best, (r + 1) * best), scores.subarray(r * best, (r + 1) * best));
    }
  }
}

/** The best `topK` of one row's best, less what is hidden: that scores `-∞`. */
function bestOf(entities: BigInt64Array, scores: Float32Array, topK: number): Pick<ScoreResult, 'topEntities' | 'topScores'> {
  const hiddenFrom = scores.indexOf(-Infinity);
  const count = Math.min(topK, hiddenFrom < 0 ? scores.length : hiddenFrom);
  return {
    topEntities: Int32Array.from(entities.subarray(0, count), (index) => Number(index) + 1),
    topScores: scores.slice(0, count),
  };
}

/** `(1, V)`: 0, and `-∞` for what is retired; `(1, 1)` where nothing is. */
function offeredMask({ config, catalogue }: Bundle): Tensor {
  if (catalogue === undefined || catalogue.retired.length === 0) return new Tensor('float32', new Float32Array(1), [1, 1]);
  const mask = new Float32Array(config.vocabularySize);
  for (const row of catalogue.retired) mask[row - 1] = -Infinity;
  return new Tensor('float32', mask, [1, mask.length]);
}

/** Pairs (row of the run, entity index) that are left out: what the user has seen, except the row's own target. `(2 * S,)` */
function hiddenPairs(requests: readonly ScoreRequest[], rows: readonly Row[]): BigInt64Array {
  const most = rows.reduce((sum, { request, row }) => sum + requests[request]!.seenCount[row]!, 0);
  // Little-endian words of 64-bit integers: a BigInt a value would cost more than the model's run.
  const words = new Int32Array(4 * most);
  let at = 0;
  for (const [r, { request, row }] of rows.entries()) {
    const { seen, seenCount, targets } = requests[request]!;
    for (let s = 0; s < seenCount[row]!; s++) {
      if (seen[s] === targets[row] || seen[s]! <= 0) continue;
      words[at] = r;
      words[at + 2] = seen[s]! - 1;
      at += 4;
    }
  }
  return new BigInt64Array(words.buffer, 0, at / 2);
}
