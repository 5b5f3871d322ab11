/** Looks into a partition's store, whoever has it open: for questions about what it holds, never for the stream's own reading. */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { open } from 'lmdb';
import { messageOf, PipelineError } from '../../schemas/errors.ts';

/**
 * The keys from `first` to `last` that the store in `path` holds; undefined where there is no store.
 *
 * It writes nothing and takes nothing: an instance may run beside. One that starts at the same moment may make the answer useless.
 *
 * @throws PipelineError `STORE_UNAVAILABLE` where the file cannot be read
 */
export async function peekKeys(path: string, first: Buffer, last: Buffer): Promise<readonly Uint8Array[] | undefined> {
  if (!existsSync(join(path, 'data.mdb'))) return undefined;
  try {
    const database = open<Uint8Array, Uint8Array>({ path, readOnly: true, encoding: 'binary', keyEncoding: 'binary' });
    try {
      return [...database.getKeys({ start: first, end: last, inclusiveEnd: true })].map((key) => Uint8Array.from(key));
    } finally {
      await database.close();
    }
  } catch (cause) {
    throw new PipelineError('STORE_UNAVAILABLE', `state folder ${path} cannot be looked into: ${messageOf(cause)}`, { cause });
  }
}
