/** A mapping's constant kind of action that the model does not have would make every record a dead letter: found at the start. */
import type { Bundle } from '../models/hstu/bundle.ts';
import { Tokenizer } from '../models/hstu/tokenizer.ts';
import type { Config } from '../schemas/config.ts';
import { PipelineError } from '../schemas/errors.ts';
import { entriesOf, type RecordMapping } from '../schemas/mapping-config.ts';

/**
 * Checks the kinds of action that mappings give as constants against the bundle's.
 *
 * @throws PipelineError `CONFIG_INVALID` that names every key, what it says, and what is allowed
 */
export function requireKnownActions(config: Pick<Config, 'source' | 'kafka' | 'sequence'>, bundle: Bundle): void {
  const { erasureAction } = config.sequence;
  const tokenizer = new Tokenizer(bundle);
  const problemOf = (key: string, action: string | undefined): string[] => {
    if (action === undefined || /[{}]/.test(action) || action === erasureAction) return [];
    const trial = tokenizer.token({ action, entity: '' });
    return trial.kind === 'refuse' && trial.code === 'ACTION_UNKNOWN' ? [`${key}: ${trial.message}`] : [];
  };
  const { kafka, source } = config;
  // Every list of a source is of entries with a mapping: files, and whatever else it reads.
  const sources = Object.entries(source ?? {}).flatMap(([list, entries]) =>
    Array.isArray(entries) ? entries.map(({ mapping }, i) => [`source.${list}.${i}`, mapping] as const) : [],
  );
  const mappings: readonly (readonly [string, RecordMapping | undefined])[] = [...sources, ['kafka', kafka?.mapping]];
  const problems = mappings.flatMap(([where, mapping]) => {
    const entries = mapping === undefined ? [] : entriesOf(mapping);
    return entries.flatMap(({ at, mapping: kind }) => problemOf(`${where}.mapping${at}.action`, kind?.action));
  });
  if (problems.length > 0)
    throw new PipelineError('CONFIG_INVALID', `${problems.length} problem(s):\n  ${problems.join('\n  ')}`);
}
