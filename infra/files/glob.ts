/** Paths with wildcards, expanded: `*` and `?` within a name, `**` over folders, `{a,b}` for either. */
import { readdirSync } from 'node:fs';
import { join, sep } from 'node:path';
import { PipelineError } from '../../schemas/errors.ts';
import { sourceUnreadable } from './read-text.ts';

const WILD = /[*?{]/;

/**
 * The files that a pattern names, sorted by their paths (by code units), so that the same files come in the same order everywhere.
 * A path without a wildcard is that path, whether it exists or not. Names that begin with a dot match only where the pattern says so.
 *
 * @throws PipelineError `SOURCE_UNREADABLE` where nothing matches, or a folder cannot be read
 */
export function expandGlob(pattern: string): string[] {
  if (!WILD.test(pattern)) return [pattern];
  const found = new Set<string>();
  for (const alternative of alternatives(pattern)) {
    const [root = '', ...steps] = alternative.split(/[\\/]/);
    walk(root === '' ? sep : root, steps, found);
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
