/** A process that works on a state store until it is killed: `<folder> write` or `<folder> read`. Talks over its IPC channel. */
import { openStateStore } from '../../infra/store/lmdb-state-store.ts';

const [path, work] = process.argv.slice(2) as [string, 'write' | 'hold' | 'read'];
const send = (message: object) => new Promise<void>((resolve) => process.send!(message, () => resolve()));

const { store, rebuilt } = await openStateStore({ path });
await send({ opened: process.pid, rebuilt });

/** Write `n` sets every key to `n`, and removes one: all or nothing of it must be seen. */
if (work === 'write') {
  for (let n = (store.meta()?.changelogOffset ?? 0) + 1; ; n++) {
    const changes = Array.from({ length: 40 }, (_, i) => ({
      key: Buffer.from(`\u0001key-${i}`, 'latin1'),
      value: i === n % 40 ? null : Buffer.alloc(300 + 97 * ((i * n) % 50), n % 251),
    }));
    await store.write(changes, { changelogOffset: n });
    process.send!({ written: n });
    if (n % 7 === 0) await new Promise((resolve) => setImmediate(resolve));
  }
}
if (work === 'hold') await new Promise((resolve) => setTimeout(resolve, 60_000));

/** Reads everything there may be: damage must be an error or wrong bytes, not the end of the process. */
if (work === 'read') {
  const values: (string | undefined)[] = [];
  let failed: string | undefined;
  try {
    for (let i = 0; i < 2000; i++)
      values.push(Buffer.from(store.get(Buffer.from(`\u0001key-${i}`, 'latin1')) ?? []).toString('latin1'));
  } catch (error) {
    failed = (error as { code?: string }).code ?? String(error);
  }
  await send({ values, failed });
  process.exit(0);
}
