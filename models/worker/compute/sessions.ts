/** The runtime sessions of one bundle on one thread, created when first needed. */
import { InferenceSession } from 'onnxruntime-node';
import type { Bundle } from '../../hstu/bundle.ts';
import { bulkGraph } from '../../hstu/graph/bulk-graph.ts';
import { candidateGraph, fullCandidateGraph, prefillGraph, stageGraph, stepGraph } from '../../hstu/graph/graphs.ts';
import { scoreGraph } from '../../hstu/graph/retrieval-graph.ts';

/** One thread a session: parallelism comes from encoder workers, which share nothing. */
const OPTIONS: InferenceSession.SessionOptions = { intraOpNumThreads: 1, interOpNumThreads: 1, logSeverityLevel: 3 };

export class Sessions {
  readonly #bundle: Bundle;
  readonly #options: InferenceSession.SessionOptions;
  readonly #sessions = new Map<string, Promise<InferenceSession>>();

  constructor(bundle: Bundle, provider: 'cpu' | 'cuda' = 'cpu') {
    this.#bundle = bundle;
    this.#options = { ...OPTIONS, executionProviders: provider === 'cpu' ? ['cpu'] : ['cuda', 'cpu'] };
  }

  prefill(): Promise<InferenceSession> {
    return this.#session('prefill', () => prefillGraph(this.#bundle));
  }

  step(): Promise<InferenceSession> {
    return this.#session('step', () => stepGraph(this.#bundle));
  }

  stage(layer: number): Promise<InferenceSession> {
    return this.#session(`stage-${layer}`, () => stageGraph(this.#bundle, layer));
  }

  bulk(chunks: number, blank: number): Promise<InferenceSession> {
    return this.#session(`bulk-${chunks}-${blank}`, () => bulkGraph(this.#bundle, chunks, blank));
  }

  score(): Promise<InferenceSession> {
    return this.#session('score', () => scoreGraph(this.#bundle));
  }

  candidates(): Promise<InferenceSession> {
    return this.#session('candidates', () => candidateGraph(this.#bundle));
  }

  fullCandidates(): Promise<InferenceSession> {
    return this.#session('full-candidates', () => fullCandidateGraph(this.#bundle));
  }

  async release(): Promise<void> {
    for (const session of this.#sessions.values()) await (await session).release();
    this.#sessions.clear();
  }

  #session(key: string, graph: () => Uint8Array): Promise<InferenceSession> {
    const known = this.#sessions.get(key);
    if (known !== undefined) return known;
    const created = InferenceSession.create(graph(), this.#options);
    this.#sessions.set(key, created);
    return created;
  }
}
