/** The identity of a file source: what a run id is made of, so that a changed file is never resumed by mistake. */
import { createHash } from 'node:crypto';
import type { FileSource } from '../../schemas/config.ts';
import type { RowInput } from './read-records.ts';
import { readBytes } from './read-text.ts';

/**
 * SHA-256, 64 hexadecimal digits, over the contents, formats and mappings of the files in their order. Paths do not
 * count: moved files are the same source. Streams; holds one chunk.
 *
 * @throws PipelineError `SOURCE_UNREADABLE`
 */
export async function fingerprintFiles(files: readonly FileSource[]): Promise<string> {
  const digests: string[] = [];
  for (const { path } of files) {
    const hash = createHash('sha256');
    for await (const chunk of readBytes(path)) hash.update(chunk);
    digests.push(hash.digest('hex'));
  }
  return combineFingerprint(files, digests);
}

/** The same, from digests of the contents that are already known. */
export function combineFingerprint(
  files: readonly Pick<RowInput, 'format' | 'mapping' | 'csv' | 'encoding'>[],
  contentDigests: readonly string[],
): string {
  const hash = createHash('sha256');
  for (const [i, { format, mapping, csv, encoding }] of files.entries()) {
    hash.update(`${contentDigests[i]}\n${format}\n${canonical(mapping)}\n`);
    if (csv !== undefined || encoding !== undefined) hash.update(`${canonical({ csv, encoding })}\n`);
  }
  return hash.digest('hex');
}

/** JSON with sorted keys: the order in which a mapping is written does not matter. */
function canonical(value: unknown): string {
  return JSON.stringify(value, (_, inner: unknown) =>
    typeof inner === 'object' && inner !== null && !Array.isArray(inner)
      ? Object.fromEntries(Object.entries(inner).sort(([a], [b]) => (a < b ? -1 : 1)))
      : inner,
  );
}
