/** On what terms a micro-batch waits for the encoder: in turn with those of other partitions, by its first unit's. */
import type { SourceBatch } from '../schemas/batch.ts';
import type { CallTerms } from '../schemas/encoding.ts';

export const termsOf = ([first]: readonly { readonly batch: { readonly source: SourceBatch } }[]): CallTerms => ({
  key: first?.batch.source.partition ?? 0,
});
