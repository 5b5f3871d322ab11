/** The state of a partition as bytes: the records that the changelog topic and the local store both keep. */

/** First byte of keys that are no user's: where the state stands, where erasures stand. */
export const RESERVED_KEY_PREFIX = 0x00;

/** A record that a reset begins a partition's changelog with: that there is no state is known, not a loss. */
export const RESET_KEY: Uint8Array = Buffer.concat([Uint8Array.of(RESERVED_KEY_PREFIX), Buffer.from('reset')]);

/** What a reset says in that record: the epoch of what comes after it; of before there were epochs without. */
export function epochOfReset(value: Uint8Array | undefined): number {
  if (value === undefined) return 0;
  const { epoch = 0 } = JSON.parse(Buffer.from(value).toString()) as { readonly epoch?: number };
  return epoch;
}

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

/** Of each input topic: another, where it was deleted and made again. */
export type TopicIds = Readonly<Record<string, string>>;

/** What a state is made of beside events: a program with other settings would read it wrongly. */
export interface StateSignature {
  /** Layout of the records. */
  readonly format: number;
  readonly window: { readonly maxLength: number; readonly blockLength: number };
  readonly seenLimit: number;
  /** The entities that rows stand for: a later model may add to them, not change them. */
  readonly vocabulary: { readonly size: number; readonly digest: string };
  /** What a token says beside its entity, and how; absent where it is the entity's row in the vocabulary. */
  readonly tokens?: string;
  /** Encoded kinds of action that `tokens` covers, in the bundle's order: a later model may append to them. Given with `tokens`. */
  readonly actions?: number;
}

/** Where a partition's state stands, committed with every change of it. */
export interface StatePosition {
  /** Random, made with a partition's first commit: tells a state from one that was before a reset. */
  readonly stateId: string;
  readonly inputs: InputPositions;
  /** Ids of the topics that `inputs` counts in, as far as the brokers tell them; absent in state of before they were looked at. */
  readonly topicIds?: TopicIds;
  /** Partitions that the topics had: with others a user's key would be of another one. Absent in state of before they were looked at. */
  readonly partitions?: number;
  /** Records that the state has with this one's commit, this one aside; absent in state of before they were counted. */
  readonly records?: number;
  readonly signature: StateSignature;
  /** Random, of one instance's hold on the partition: tells a commit of its own from another's. Absent in records of before there was one. */
  readonly writer?: string;
  /** Of what is published: promotions and resets that the partition has had (`schemas/version.ts`). @default 0 */
  readonly epoch?: number;
}
