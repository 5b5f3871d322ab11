/** How many files and connections this process may have open. */
import { readFileSync } from 'node:fs';

/** What a start and an instance of a few partitions take; each further partition takes two or three. */
export const NEEDED_OPEN_FILES = 160;

/** Undefined where the system does not say, or sets no limit. */
export function allowedOpenFiles(): number | undefined {
  try {
    const found = /^Max open files\s+(\d+)/m.exec(readFileSync('/proc/self/limits', 'utf8'))?.[1];
    return found === undefined ? undefined : Number(found);
  } catch {
    return undefined;
  }
}

/** What is wrong with the limit; undefined where it suffices. */
export function openFilesProblem(allowed = allowedOpenFiles()): string | undefined {
  if (allowed === undefined || allowed >= NEEDED_OPEN_FILES) return undefined;
  return `${allowed} open files are allowed (ulimit -n), at least ${NEEDED_OPEN_FILES} are needed`;
}
