/** The names of files as topics: lineage and dead letters are keyed by them. */
import { basename } from 'node:path';

/** Base names, made distinct. */
export function topicsOf(files: readonly { readonly path: string }[]): string[] {
  const taken = new Map<string, number>();
  return files.map(({ path }) => {
    const name = basename(path);
    const count = (taken.get(name) ?? 0) + 1;
    taken.set(name, count);
    return count === 1 ? name : `${name}#${count}`;
  });
}
