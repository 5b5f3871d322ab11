// Temporary, until lmdb-state-store.ts is there.
import { mkdirSync } from 'node:fs';
import { open } from 'lmdb';
import type { StateChange } from '../../schemas/state.ts';

export interface StateStore<M> {
  readonly bytes: number;
  get(key: Uint8Array): Uint8Array | undefined;
  meta(): M | undefined;
  write(changes: readonly StateChange[], meta: M): Promise<void>;
  clear(): Promise<void>;
  close(): Promise<void>;
}
const META = Buffer.from([0, 1]);
export async function openStateStore<M>({ path }: { path: string }): Promise<{ store: StateStore<M>; rebuilt?: string }> {
  mkdirSync(path, { recursive: true });
  const db = open<Buffer, Buffer>({ path, encoding: 'binary', keyEncoding: 'binary' });
  const store: StateStore<M> = {
    bytes: 0,
    get: (key) => db.get(Buffer.from(key)),
    meta: () => {
      const found = db.get(META);
      return found === undefined ? undefined : (JSON.parse(found.toString()) as M);
    },
    write: async (changes, meta) => {
      db.transactionSync(() => {
        for (const { key, value } of changes) {
          if (value === null) db.removeSync(Buffer.from(key));
          else db.putSync(Buffer.from(key), Buffer.from(value));
        }
        db.putSync(META, Buffer.from(JSON.stringify(meta)));
      });
    },
    clear: async () => db.clearSync(),
    close: () => db.close(),
  };
  return { store };
}
