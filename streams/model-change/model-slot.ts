/** The place of the model that is served: who works with it holds it, and another one takes its place without a gap. */

/** A model for as long as one works with it. */
export interface Held<M> {
  readonly model: M;
  /** Aborted when another model has taken the place: finish, let go, and take that. */
  readonly replaced: AbortSignal;
  readonly letGo: () => void;
}

interface Occupant<M> {
  readonly model: M;
  readonly replaced: AbortController;
  holders: number;
  told: boolean;
  /** Called when it is replaced and nobody holds it any more. */
  free: (() => void) | undefined;
}

/**
 * One model at a time. A flow takes hold of it, and lets go when all that it has read is committed, so that no batch meets two.
 */
export class ModelSlot<M> {
  readonly #onServing: (model: M) => void;
  #occupant: Occupant<M>;
  /** Resolves when nobody works with any of those before. */
  #earlierFree: Promise<void> = Promise.resolve();

  /** @param onServing told of a model when the first takes hold of it: nobody works with the one before any more */
  constructor(model: M, onServing: (model: M) => void = () => undefined) {
    this.#occupant = occupantOf(model);
    this.#onServing = onServing;
  }

  get current(): M {
    return this.#occupant.model;
  }

  hold(): Held<M> {
    const occupant = this.#occupant;
    occupant.holders += 1;
    if (!occupant.told) this.#onServing(occupant.model);
    occupant.told = true;
    const letGo = () => {
      occupant.holders -= 1;
      if (occupant.holders === 0) occupant.free?.();
    };
    return { model: occupant.model, replaced: occupant.replaced.signal, letGo };
  }

  /** From now on `model` is taken hold of. Resolves when nobody works with the one before, nor with any before that. */
  replace(model: M): Promise<void> {
    const before = this.#occupant;
    const earlierFree = this.#earlierFree;
    this.#occupant = occupantOf(model);
    const free = new Promise<void>((resolve) => {
      before.free = resolve;
      before.replaced.abort();
      if (before.holders === 0) resolve();
    });
    this.#earlierFree = Promise.all([earlierFree, free]).then(() => undefined);
    return this.#earlierFree;
  }
}

const occupantOf = <M>(model: M): Occupant<M> => ({
  model,
  replaced: new AbortController(),
  holders: 0,
  told: false,
  free: undefined,
});
