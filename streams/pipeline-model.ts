/** A bundle as the steps of the pipeline need it. */
import { CatalogueFields } from '../models/catalogue/catalogue-fields.ts';
import { CatalogueOrder } from '../models/catalogue/overlay.ts';
import type { Bundle } from '../models/hstu/bundle.ts';
import { Popularity } from '../models/hstu/popularity.ts';
import { Tokenizer } from '../models/hstu/tokenizer.ts';
import type {
  Tokenizer as ActionTokenizer,
  CandidateVocabulary,
  KindTokenizer,
  ModelHeads,
  PopularityOrder,
} from '../operators/index.ts';
import { type BundleConfig, servesRetrieval } from '../schemas/bundle-config.ts';

export interface PipelineModel {
  readonly digest: string;
  readonly window: BundleConfig['window'];
  readonly tokenizer: ActionTokenizer & CandidateVocabulary & KindTokenizer & { entityRowOf(token: number): number };
  readonly heads: ModelHeads;
  /** Entities of the catalogue. */
  readonly vocabularySize: number;
  /** Orders the catalogue for users of whom nothing is known. Absent where the bundle does not say. */
  readonly popularity?: PopularityOrder | undefined;
  /** What the catalogue says of its entities. */
  readonly fields: Pick<CatalogueFields, 'allowed' | 'valuesOf'>;
}

export const pipelineModel = (bundle: Bundle): PipelineModel => ({
  digest: bundle.digest,
  window: bundle.config.window,
  tokenizer: new Tokenizer(bundle),
  heads: { retrieval: servesRetrieval(bundle.config), ranking: bundle.config.ranking !== undefined },
  vocabularySize: bundle.config.vocabularySize,
  popularity: bundle.catalogue === undefined ? Popularity.of(bundle) : new CatalogueOrder(bundle.catalogue),
  fields: new CatalogueFields(bundle),
});
