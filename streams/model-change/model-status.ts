/** What is told of the model that is served, and of changes of it. */
import type { PrefillProgress } from './prefill-users.ts';
import type { ServedModel } from './served-model.ts';

export interface ModelName {
  /** Its folder. */
  readonly bundle: string;
  readonly name: string;
  readonly digest: string;
}

/** A change that is over. */
export interface EndedChange {
  readonly bundle: string;
  /** All but `switched` leave the model that was served in its place. */
  readonly outcome: 'switched' | 'refused' | 'failed' | 'called off';
  /** Why not. */
  readonly problem?: string;
  /** From the moment that nothing more was read for the old model until nothing of it was under way. */
  readonly switchMs?: number;
  readonly at: string;
}

export interface ModelStatus {
  readonly serving: ModelName & { readonly since: string };
  /** Null while none is under way. */
  readonly change:
    | (ModelName & {
        readonly phase: 'loading' | 'prefilling' | 'switching';
        readonly users: PrefillProgress;
        /** Encoded so far, a second. */
        readonly usersPerSecond: number;
        readonly since: string;
      })
    | null;
  /** The newest that is over; null before the first. */
  readonly last: EndedChange | null;
}

export interface ModelObserver {
  /** A model is served from now on, the first one too. */
  readonly onServing?: (model: ServedModel) => void;
  /** @param noticed what readers of the outputs will notice */
  readonly onChangeBegun?: (next: ServedModel, noticed: readonly string[]) => void;
  readonly onChangeProgress?: (status: NonNullable<ModelStatus['change']>) => void;
  readonly onChangeEnded?: (ended: EndedChange) => void;
}
