/** The messages between the encoder's client and its worker threads. Both sides import this file and nothing of each other. */
import type {
  CandidateRequest,
  CandidateResult,
  EncodeRequest,
  EncodeResult,
  ScoreRequest,
  ScoreResult,
} from '../../schemas/encoding.ts';
import type { ErrorCode } from '../../schemas/errors.ts';
import type { CatalogueOverlay } from '../catalogue/overlay.ts';
import type { Provider, ProviderReport } from '../gpu/choose-provider.ts';
import type { GpuEngineOptions, GpuStats } from '../gpu/gpu-engine.ts';
import type { Bundle } from '../hstu/bundle.ts';
import type { EngineStats } from './engine.ts';

/** What a worker is started with. */
export interface WorkerStart {
  readonly bundle: Bundle;
  readonly options: GpuEngineOptions;
  readonly provider: Provider;
  /** File of the index that lists are made by. @default they are exact */
  readonly index?: string | undefined;
}

/** A call and what it answers with. */
export interface Calls {
  encode: { readonly request: readonly EncodeRequest[]; readonly response: readonly EncodeResult[] };
  encodeInBulk: { readonly request: readonly EncodeRequest[]; readonly response: readonly EncodeResult[] };
  score: { readonly request: readonly ScoreRequest[]; readonly response: readonly ScoreResult[] };
  scoreCandidates: { readonly request: readonly CandidateRequest[]; readonly response: readonly CandidateResult[] };
  /** Calls before it are answered by the catalogue before, those after it by this one. */
  useCatalogue: { readonly request: CatalogueOverlay; readonly response: null };
  /** Lists are made by this file's index from now on; those of calls before it are exact. */
  useIndex: { readonly request: string; readonly response: null };
  forget: { readonly request: string; readonly response: boolean };
  /** Who has rows in the cache, most recently used first. */
  cachedUsers: { readonly request: null; readonly response: readonly string[] };
  touch: { readonly request: readonly string[]; readonly response: null };
  stats: { readonly request: null; readonly response: EngineStats | GpuStats };
  close: { readonly request: null; readonly response: null };
}
export type CallName = keyof Calls;

export type WorkerCall = {
  [Name in CallName]: { readonly id: number; readonly call: Name; readonly request: Calls[Name]['request'] };
}[CallName];

/** Client to worker. Calls are carried out in the order they arrive; `die`, for fault tests, at once. */
export type ToWorker = WorkerCall | 'die';

/** Worker to client: the answer to call `id`, or why there is none; and unasked, that the provider is another or the disk failed. */
export type FromWorker =
  | { readonly provider: ProviderReport }
  | { readonly diskFailure: string }
  | { readonly id: number; readonly response: Calls[CallName]['response'] }
  | { readonly id: number; readonly failed: { readonly code: ErrorCode; readonly message: string } };
