/** What is published as the best of the catalogue, and what it leaves out. */
import { z } from 'zod';
import { capsSchema, catalogueFilterSchema } from './catalogue-filter.ts';

export const scoresSchema = z
  .strictObject({
    /** Entities published with every embedding; 0 for none. */
    topK: z.int().nonnegative().max(1_000).default(10),
    /**
     * Leave out what the user has already seen. `{ actions, forDays }`: only what he did these kinds of action on, within so many days of the
     * list's moment, as far as his window goes: of a shop, what was bought of late, while what was only viewed is listed again.
     */
    seenFilter: z
      .union([
        z.boolean(),
        z
          .strictObject({
            /** Kinds of action, of a bundle whose tokens say them. @default all */
            actions: z.array(z.string().min(1)).min(1).optional(),
            /** @default for ever */
            forDays: z.number().positive().max(36_500).optional(),
          })
          .refine(({ actions, forDays }) => actions !== undefined || forDays !== undefined, 'needs actions or forDays'),
      ])
      .default(true),
    /**
     * Two-stage, for a bundle that retrieves and ranks: the best so many by dot product are ranked by its task heads, and the
     * best `topK` of them published. @default 5 × topK
     */
    retrieve: z.int().positive().max(10_000).optional(),
    /**
     * What the catalogue must say of an entity for any list to hold it: `{ inStock: true, category: [tea, coffee], price: { max: 20 }, region: { not: us } }`.
     * Decided before the best are taken. @default all entities
     */
    filter: catalogueFilterSchema.optional(),
    /** At most so many of one list with one value of a field: `{ brand: 2 }`. @default no bound */
    caps: capsSchema.optional(),
    /**
     * The last so many entities of a user's window are judged beside what was retrieved, by a bundle that retrieves and ranks; what `seenFilter`
     * or `filter` leaves out excepted. For a shop, where much is bought again.
     */
    ownHistory: z.int().nonnegative().max(1_000).default(0),
    /**
     * Requested candidates outside the vocabulary: scored through the bundle's shared rows, or left out of the answer, with
     * the reason. A bundle without shared rows leaves them out. @default 'hash'
     */
    unknownCandidates: z.enum(['hash', 'leave-out']).optional(),
    /**
     * How `run` lists the best of the catalogue. `exact`: all of it is scanned. `hnsw`: by an index, which misses a few of the best;
     * scores, ranks and embeddings stay exact. `auto`: by an index above 100,000 entities. Replays always scan.
     */
    index: z.enum(['exact', 'auto', 'hnsw']).default('auto'),
  })
  .refine(({ ownHistory, seenFilter }) => ownHistory === 0 || seenFilter !== true, {
    path: ['ownHistory'],
    error: 'with seenFilter: true all of it has been seen: needs seenFilter: false, or { actions, forDays }',
  });
