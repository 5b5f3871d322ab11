/** Candidates in micro-batches of a fixed size over one history (M-FALCON, arXiv 2402.17152 §3.4). */
import type { CandidateRequest, CandidateResult } from '../../../schemas/encoding.ts';
import type { CatalogueOverlay } from '../../catalogue/overlay.ts';
import type { Bundle } from '../../hstu/bundle.ts';
import { type CandidateOutput, CandidateRun, type History } from './candidate-run.ts';
import { FullCandidateRun } from './full-candidate-run.ts';
import type { Sessions } from './sessions.ts';

export type Judgement = Omit<CandidateResult, 'rowsComputed' | 'outcome'>;

export class CandidateScorer {
  readonly #bundle: Bundle;
  readonly #sessions: Sessions;
  readonly #candidateRows: number;
  readonly #run: CandidateRun;
  readonly #fullRun: FullCandidateRun;

  /** @param candidateRows candidates a micro-batch */
  constructor(bundle: Bundle, sessions: Sessions, candidateRows: number) {
    this.#bundle = bundle;
    this.#sessions = sessions;
    this.#candidateRows = candidateRows;
    this.#run = new CandidateRun(bundle);
    this.#fullRun = new FullCandidateRun(bundle);
  }

  useCatalogue(catalogue: CatalogueOverlay): void {
    this.#run.useCatalogue(catalogue);
    this.#fullRun.useCatalogue(catalogue);
  }

  /** From the cached history: a micro-batch costs its own rows. */
  async score(history: History, request: CandidateRequest): Promise<Judgement> {
    const shared = this.#run.share(history);
    const session = await this.#sessions.candidates();
    return inMicroBatches(this.#bundle, this.#candidateRows, request, (part) =>
      this.#run.run(session, shared, history.segment, part),
    );
  }

  /** By full passes: every micro-batch costs the history as well. */
  async scoreInFull(request: CandidateRequest): Promise<Judgement> {
    const session = await this.#sessions.fullCandidates();
    return inMicroBatches(this.#bundle, this.#candidateRows, request, (part) =>
      this.#fullRun.run(session, request.segment, part),
    );
  }
}

/** Cuts a request's candidates into micro-batches and puts the answers together. */
export async function inMicroBatches(
  { config: { dimension: D, ranking } }: Bundle,
  candidateRows: number,
  { userId, candidates, withRows = false }: CandidateRequest,
  run: (part: Int32Array) => Promise<CandidateOutput>,
): Promise<Judgement> {
  const names = ranking!.tasks.map((task) => task.name);
  const tasks = names.map(() => new Float32Array(candidates.length));
  const combined = new Float32Array(candidates.length);
  const rows = new Float32Array(withRows ? candidates.length * D : 0);
  for (let start = 0; start < candidates.length; start += candidateRows) {
    const part = candidates.subarray(start, start + candidateRows);
    const output = await run(part);
    combined.set(output.combined, start);
    for (const [k, task] of tasks.entries())
      for (let c = 0; c < part.length; c++) task[start + c] = output.probabilities[c * tasks.length + k]!;
    if (withRows) rows.set(output.y, start * D);
  }
  return { userId, tasks: Object.fromEntries(names.map((name, k) => [name, tasks[k]!])), combined, rows };
}
