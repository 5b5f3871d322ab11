/** What the two stages make of one user: the order of retrieval beside that of ranking, before and after the last action. */
import colors from 'picocolors';
import type { StoredEvent } from '../../infra/clickhouse/readers.ts';
import { table } from '../../infra/console/table.ts';
import { HstuEncoder } from '../../models/encoder.ts';
import type { Bundle } from '../../models/hstu/bundle.ts';
import { LineScorer, type ScoredLine } from '../score-lines.ts';

type Listed = NonNullable<ScoredLine['candidates']>;

/** The lists at one moment, best first. */
export interface Stages {
  /** By dot product: all that ranking is given. */
  readonly retrieved: Listed;
  /** The best of them by combined score, with each task's probability. */
  readonly ranked: Listed;
}

export interface TwoStages {
  readonly before: Stages;
  readonly after: Stages;
}

/**
 * Both stages of a bundle that has both, of a history without its last event and whole.
 *
 * @param events encoded ones of one user, oldest first
 */
export async function twoStages(
  bundle: Bundle,
  events: readonly StoredEvent[],
  { topK, retrieve }: { readonly topK: number; readonly retrieve: number },
): Promise<TwoStages> {
  const encoder = new HstuEncoder(bundle);
  try {
    const lines = (listed: number) =>
      [events.slice(0, -1), events].map((history) => JSON.stringify({ userId: 'shown', events: history, topK: listed }));
    const retrieved = await new LineScorer(bundle, encoder, { rank: false }).score(lines(retrieve));
    const ranked = await new LineScorer(bundle, encoder, { retrieve }).score(lines(topK));
    const [before, after] = retrieved.map((line, i) => ({
      retrieved: line.candidates ?? [],
      ranked: ranked[i]!.candidates ?? [],
    }));
    return { before: before!, after: after! };
  } finally {
    await encoder.close();
  }
}

/** Two tables: place by place what was retrieved and what was ranked there, and which place retrieval had given it. */
export function describeStages({ before, after }: TwoStages, titleOf: (entity: string) => string): string {
  const part = (title: string, stages: Stages) => `${colors.bold(title)}\n${table(rowsOf(stages, titleOf))}`;
  const retrieved = after.retrieved.length;
  return [
    colors.dim(`The best ${retrieved} by dot product are ranked by the task heads; shown are the best ${after.ranked.length}.`),
    part('Before the last action', before),
    part('After it', after),
  ].join('\n');
}

function rowsOf({ retrieved, ranked }: Stages, titleOf: (entity: string) => string): Record<string, unknown>[] {
  const placeOf = new Map(retrieved.map(({ entity }, i) => [entity, i + 1]));
  return ranked.map(({ entity, score, tasks = {} }, i) => ({
    place: i + 1,
    retrieved: titleOf(retrieved[i]!.entity),
    'dot product': retrieved[i]!.score,
    ranked: titleOf(entity),
    was: placeOf.get(entity) ?? null,
    score,
    ...Object.fromEntries(Object.entries(tasks).map(([task, probability]) => [`p(${task})`, probability])),
  }));
}
