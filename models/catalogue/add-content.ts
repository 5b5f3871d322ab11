/** Gives a bundle a projection of content embeddings, and says what it is worth. */
import { PipelineError } from '../../schemas/errors.ts';
import type { Bundle } from '../hstu/bundle.ts';
import { fitProjection, projectContent } from './content-projection.ts';

export interface AddedContent {
  readonly bundle: Omit<Bundle, 'digest'>;
  /** Of a content embedding. */
  readonly dimension: number;
  /** Of the vocabulary, with content. */
  readonly entities: number;
  /** Mean cosine of projected and true rows of every tenth entity, by a fit to the others. */
  readonly heldOutCosine: number;
}

/**
 * @param content by entity; those outside the vocabulary have no row to be fitted to
 * @throws PipelineError `CONFIG_INVALID` where lengths differ, or too few entities of the vocabulary have content
 */
export function addContent(
  bundle: Bundle,
  content: ReadonlyMap<string, Float32Array>,
  { ridge, model }: { readonly ridge?: number; readonly model?: string | undefined } = {},
): AddedContent {
  const known = bundle.entities.flatMap((entity, i) => {
    const vector = content.get(entity);
    return vector === undefined ? [] : [{ entity, row: i + 1, vector }];
  });
  if (known.length < 20)
    throw new PipelineError(
      'CONFIG_INVALID',
      `${known.length} of the bundle's ${bundle.entities.length} entities have content among the ${content.size} given; at least 20 are needed`,
    );
  const dimension = known[0]!.vector.length;
  const other = known.find(({ vector }) => vector.length !== dimension);
  if (other !== undefined)
    throw new PipelineError(
      'CONFIG_INVALID',
      `content of '${other.entity}' has ${other.vector.length} numbers, that of '${known[0]!.entity}' ${dimension}: must be equal`,
    );
  const table = bundle.tensors.get('entity_embedding')!.data;
  const D = bundle.config.dimension;
  const rowOf = (row: number) => table.subarray(row * D, (row + 1) * D);
  const projectionOf = (part: typeof known) => {
    const flat = new Float32Array(part.length * dimension);
    const rows = new Float32Array(part.length * D);
    for (const [i, { row, vector }] of part.entries()) {
      flat.set(vector, i * dimension);
      rows.set(rowOf(row), i * D);
    }
    return fitProjection({ content: flat, rows, count: part.length, ...(ridge !== undefined && { ridge }) });
  };
  const trial = projectionOf(known.filter((_, i) => i % 10 !== 0));
  const heldOut = known.filter((_, i) => i % 10 === 0);
  const cosines = heldOut.map(({ row, vector }) => cosine(projectContent(trial, vector), rowOf(row)));
  const { weight, bias } = projectionOf(known);
  const tensors = new Map(bundle.tensors)
    .set('content.weight', { shape: [dimension, D], data: weight })
    .set('content.bias', { shape: [D], data: bias });
  return {
    bundle: {
      config: { ...bundle.config, content: { dimension, ...(model !== undefined && { model }) } },
      tensors,
      entities: bundle.entities,
    },
    dimension,
    entities: known.length,
    heldOutCosine: cosines.reduce((sum, one) => sum + one, 0) / cosines.length,
  };
}

/** 0 where either is zero. */
function cosine(a: Float32Array, b: Float32Array): number {
  let product = 0;
  for (const [d, value] of a.entries()) product += value * b[d]!;
  return product / Math.max(Math.hypot(...a) * Math.hypot(...b), 1e-12);
}
