/** What a running deployment's next model may not change, and what it does change. */
import type { Bundle } from '../../models/hstu/bundle.ts';
import { entityRows, servesRetrieval } from '../../schemas/bundle-config.ts';

export interface BundleDifferences {
  /** What forbids the change: sequences that were kept would mean something else. Empty where it may be made. */
  readonly refused: readonly string[];
  /** What readers of the outputs, and users, will notice. */
  readonly noticed: readonly string[];
}

/** How many entries of a kind are named. */
const NAMED = 3;

/**
 * Compares by what is kept: sequences hold numbers (rows of the vocabulary, or tokens that are computed of rows, actions and
 * value buckets), times and event ids. These must mean in the next model what they mean in the one that is served.
 */
export function bundleDifferences(served: Bundle, next: Bundle): BundleDifferences {
  return { refused: [...windowProblems(served, next), ...vocabularyProblems(served, next)], noticed: noticed(served, next) };
}

function windowProblems({ config: { window: was } }: Bundle, { config: { window: is } }: Bundle): string[] {
  return (['maxLength', 'blockLength'] as const)
    .filter((key) => was[key] !== is[key])
    .map((key) => `window.${key}: ${was[key]} became ${is[key]}`);
}

function vocabularyProblems(served: Bundle, next: Bundle): string[] {
  const was = served.config;
  const is = next.config;
  const problems = [...listProblems('entities', served.entities, next.entities)];
  const layout = [was.tokens?.layout ?? 'entity', is.tokens?.layout ?? 'entity'];
  if (layout[0] !== layout[1]) return [...problems, `tokens.layout: ${layout[0]} became ${layout[1]}`];
  if (was.outOfVocabulary !== is.outOfVocabulary)
    problems.push(`outOfVocabulary: ${was.outOfVocabulary ?? 'none'} became ${is.outOfVocabulary ?? 'none'}`);
  // Where tokens are more than a row, the number of rows is a factor of every token; shared rows lie behind the vocabulary's.
  else if ((was.tokens !== undefined || was.outOfVocabulary !== undefined) && entityRows(was) !== entityRows(is))
    problems.push(
      `entities: ${served.entities.length} became ${next.entities.length}; with a token layout, or rows out of the vocabulary, none may be added`,
    );
  if (was.tokens === undefined || is.tokens === undefined) return problems;
  problems.push(...listProblems('actions.encoded', was.actions.encoded, is.actions.encoded));
  const kinds = new Set([...Object.keys(was.tokens.values), ...Object.keys(is.tokens.values)]);
  for (const kind of kinds) {
    const [before, after] = [was, is].map(({ tokens }) => JSON.stringify(tokens!.values[kind] ?? null));
    if (before !== after) problems.push(`tokens.values.${kind}: ${before} became ${after}`);
  }
  return problems;
}

/** Entries must stand where they stood; more may follow. */
function listProblems(what: string, was: readonly string[], is: readonly string[]): string[] {
  const before = new Map(was.map((entry, i) => [entry, i + 1]));
  const after = new Map(is.map((entry, i) => [entry, i + 1]));
  const removed = was.filter((entry) => !after.has(entry));
  const moved = was.filter((entry, i) => after.has(entry) && after.get(entry) !== i + 1);
  const between = is.slice(0, was.length).filter((entry) => !before.has(entry));
  return [
    ...told(what, 'removed', removed, (entry) => `'${entry}' of place ${before.get(entry)}`),
    ...told(what, 'moved', moved, (entry) => `'${entry}' from place ${before.get(entry)} to ${after.get(entry)}`),
    ...told(what, 'added before the end', between, (entry) => `'${entry}' at place ${after.get(entry)}`),
  ];
}

function told(what: string, happened: string, entries: readonly string[], describe: (entry: string) => string): string[] {
  if (entries.length === 0) return [];
  const more = entries.length > NAMED ? ', …' : '';
  return [`${what}: ${entries.length} ${happened} (${entries.slice(0, NAMED).map(describe).join(', ')}${more})`];
}

function noticed(served: Bundle, next: Bundle): string[] {
  const facts = ({ config, entities }: Bundle) => ({
    'embedding dimension': config.dimension,
    'serves retrieval': servesRetrieval(config),
    'ranking tasks': config.ranking?.tasks.map(({ name }) => name).join(', ') ?? 'none',
    entities: entities.length,
    'encoded actions': config.actions.encoded.join(', '),
    'skipped actions': config.actions.skipped.join(', ') || 'none',
    'unknown entities': config.unknownEntity,
  });
  const was: Readonly<Record<string, unknown>> = facts(served);
  return Object.entries(facts(next)).flatMap(([what, is]) => (was[what] === is ? [] : [`${what}: ${was[what]} became ${is}`]));
}
