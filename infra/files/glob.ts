/** Paths with wildcards, expanded: `*` and `?` within a name, `**` over folders, `{a,b}` for either. */
import { existsSync, readdirSync } from 'node:fs';
import { isAbsolute, join, normalize, resolve, sep } from 'node:path';
import { PipelineError } from '../../schemas/errors.ts';
import { sourceUnreadable } from './read-text.ts';

const WILD = /[*?{]/;
/** What stands before it is no pattern: a folder that somebody has named with braces. */
const LITERAL = '/./';

/** A pattern that counts from a folder: of the folder's own name nothing is a wildcard. */
export function patternIn(folder: string, pattern: string): string {
  if (isAbsolute(pattern)) return resolve(pattern);
  return WILD.test(folder) ? `${folder}${LITERAL}${normalize(pattern)}` : resolve(folder, pattern);
}

/**
 * The files that a pattern names, sorted by their paths (by code units), so that the same files come in the same order everywhere.
 * A path without a wildcard is that path, whether it exists or not; so is one of a file that has wildcards in its own name. Names that begin with a dot match only where the pattern says so.
 *
 * @throws PipelineError `SOURCE_UNREADABLE` where nothing matches, or a folder cannot be read
 */
export function expandGlob(pattern: string): string[] {
  const mark = pattern.indexOf(LITERAL);
  const folder = mark < 0 ? undefined : pattern.slice(0, mark);
  const wild = mark < 0 ? pattern : pattern.slice(mark + LITERAL.length);
  const named = folder === undefined ? wild : join(folder, wild);
  if (!WILD.test(wild) || existsSync(named)) return [named];
  const found = new Set<string>();
  for (const alternative of alternatives(wild)) {
    const [root = '', ...steps] = alternative.split(/[\\/]/);
    if (folder === undefined) walk(root === '' ? sep : root, steps, found);
    else walk(folder, [root, ...steps], found);
  }
  if (found.size === 0) throw new PipelineError('SOURCE_UNREADABLE', `no file matches '${pattern}'`);
  return [...found].sort();
}

/** `a{b,c}d` → `abd`, `acd`. */
function alternatives(pattern: string): string[] {
  const braces = /^(.*?)\{([^{}]*)\}(.*)$/s.exec(pattern);
  if (braces === null) return [pattern];
  const [, before, inside, after] = braces;
  return inside!.split(',').flatMap((choice) => alternatives(`${before}${choice}${after}`));
}

function walk(folder: string, [step, ...rest]: readonly string[], found: Set<string>): void {
  if (step === undefined) return;
  const last = rest.length === 0;
  if (step === '**') {
    walk(folder, last ? ['*'] : rest, found);
    for (const entry of entriesOf(folder))
      if (entry.isDirectory() && !entry.name.startsWith('.')) walk(join(folder, entry.name), ['**', ...rest], found);
    return;
  }
  if (!WILD.test(step) && !last) {
    walk(join(folder, step), rest, found);
    return;
  }
  const matches = nameTest(step);
  for (const entry of entriesOf(folder)) {
    if (!matches(entry.name)) continue;
    if (!last) {
      if (!entry.isFile()) walk(join(folder, entry.name), rest, found);
    } else if (!entry.isDirectory()) found.add(join(folder, entry.name));
  }
}

/** None of a folder that is not there. */
function entriesOf(folder: string) {
  try {
    return readdirSync(folder, { withFileTypes: true });
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException;
    if (code === 'ENOENT' || code === 'ENOTDIR') return [];
    throw sourceUnreadable(folder, cause);
  }
}

function nameTest(step: string): (name: string) => boolean {
  const source = step
    .replace(/[.+^$()|[\]\\{}]/g, '\\$&')
    .replace(/\*/g, '.*')
    .replace(/\?/g, '.');
  const pattern = new RegExp(`^${source}$`, 's');
  return (name) => (step.startsWith('.') || !name.startsWith('.')) && pattern.test(name);
}
