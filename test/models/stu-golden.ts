/** The golden cases of the STU stack as bundles: every input row is an entity of its own, so a case's rows are a window and candidates. */

import type { Bundle } from '../../models/hstu/bundle.ts';
import { importStu } from '../../models/hstu/import-stu.ts';
import type { Tensor, TensorMap } from '../../models/hstu/safetensors.ts';
import type { Window } from '../support/encode-segments.ts';
import { type GoldenVectors, goldenTensors, goldenVectors } from '../support/golden-vectors.ts';

export interface StuCase {
  readonly history: number;
  readonly targets: number;
  /** Input of the stack, `(history + targets, D)`. */
  readonly x: readonly (readonly number[])[];
  /** Its output. */
  readonly y: readonly (readonly number[])[];
}

export interface StuVectors extends Omit<GoldenVectors, 'cases'> {
  readonly cases: readonly StuCase[];
}

export const stuVectors = (folder?: string): StuVectors[] =>
  goldenVectors(folder)
    .filter(({ architecture }) => architecture === 'stu')
    .map((vectors) => ({ ...vectors, cases: vectors.cases as unknown as StuCase[] }));

/** Weights of two tasks that tell output rows apart; the golden stack has none. */
export const TASKS = [
  { name: 'like', weight: 1 },
  { name: 'hide', weight: -0.5 },
];

/** The stack with the case's input rows as its entity table: entity `i + 1` is row `i` of `x`, to the last bit. */
export function bundleOf({ name, config, weights }: StuVectors, { x }: StuCase): Bundle {
  const D = x[0]!.length;
  const tensors = new Map<string, Tensor>(goldenTensors(weights!) as TensorMap);
  tensors.set('entity_embedding', { shape: [x.length + 1, D], data: Float32Array.from([...new Array(D).fill(0), ...x.flat()]) });
  tensors.set('ranking.weight', {
    shape: [D, 2],
    data: Float32Array.from({ length: 2 * D }, (_, i) => Math.sin(7 * i) / Math.sqrt(D)),
  });
  tensors.set('ranking.bias', { shape: [2], data: Float32Array.of(0.25, -0.5) });
  return importStu(tensors, { ...config, embeddingScale: 1, tasks: TASKS, maxSequenceLength: 128 }, name);
}

/** The case's history, a second an event: a stack without biases sees no time. */
export const historyOf = ({ history }: StuCase): Window => ({
  entities: Array.from({ length: history }, (_, i) => i + 1),
  timesS: Array.from({ length: history }, (_, i) => 1_000_000 + i),
});

export const candidatesOf = ({ history, targets }: StuCase): Int32Array =>
  Int32Array.from({ length: targets }, (_, i) => history + i + 1);
