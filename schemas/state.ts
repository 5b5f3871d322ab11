/** The state of a partition as bytes: the records that the changelog topic and the local store both keep. */

/** One record of the state, set or removed. Keys and values are the same bytes in the changelog and in the local store. */
export interface StateChange {
  readonly key: Uint8Array;
  /** Null removes the record. */
  readonly value: Uint8Array | null;
}

/** The committed records of one partition's state. */
export interface StateReader {
  /** The value of `key`, or undefined. Valid at least until the next call. */
  get(key: Uint8Array): Uint8Array | undefined;
}

/** How far the inputs of a partition are taken into its state: the next offset of every input topic. */
export type InputPositions = Readonly<Record<string, number>>;
