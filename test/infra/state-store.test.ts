import { type ChildProcess, fork } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync, truncateSync, utimesSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { openStateStore } from '../../infra/store/lmdb-state-store.ts';

let path: string;
const children: ChildProcess[] = [];
beforeEach(() => {
  path = join(mkdtempSync(join(tmpdir(), 'hstu-state-')), 'app', '3');
});
afterEach(() => {
  for (const child of children.splice(0)) child.kill('SIGKILL');
  rmSync(join(path, '..', '..'), { recursive: true, force: true });
});

const dataFile = () => join(path, 'data.mdb');
const ownerFile = () => join(path, 'owner.json');
const key = (i: number) => Buffer.from(`\u0001key-${i}`, 'latin1');
const bytesOf = (i: number) => Buffer.alloc(200 + ((i * 37) % 400), i % 251);
const unavailable = (words: string) =>
  expect.objectContaining({ code: 'STORE_UNAVAILABLE', message: expect.stringContaining(words) });

async function fill(records: number, offset = 7): Promise<void> {
  const { store } = await openStateStore({ path });
  await store.write(
    Array.from({ length: records }, (_, i) => ({ key: key(i), value: bytesOf(i) })),
    { changelogOffset: offset },
  );
  await store.close();
}

interface Message {
  readonly opened?: number;
  readonly rebuilt?: string;
  readonly written?: number;
  readonly values?: readonly string[];
  readonly failed?: string;
}

function work(kind: 'write' | 'hold' | 'read') {
  const child = fork(fileURLToPath(new URL('../support/state-store-process.ts', import.meta.url)), [path, kind], {
    execArgv: ['--import', 'tsx'],
    stdio: ['ignore', 'ignore', 'pipe', 'ipc'],
  });
  children.push(child);
  const messages: Message[] = [];
  child.on('message', (message) => void messages.push(message as Message));
  const ended = new Promise<NodeJS.Signals | number>((resolve) => {
    child.on('close', (code, signal) => resolve(signal ?? code!));
  });
  const said = async (what: (message: Message) => boolean) => {
    while (!messages.some(what)) await Promise.race([sleep(5), ended.then((how) => Promise.reject(new Error(`ended: ${how}`)))]);
  };
  return {
    child,
    messages,
    ended,
    opened: () => said(({ opened }) => opened !== undefined),
    wrote: () => said(({ written }) => written !== undefined),
  };
}

describe('a state store', () => {
  it('reads what was written, in a new process as well', async () => {
    const { store, rebuilt } = await openStateStore({ path });
    expect([rebuilt, store.meta(), store.count, store.get(key(1))]).toEqual([undefined, undefined, 0, undefined]);
    await store.write(
      [
        { key: key(1), value: bytesOf(1) },
        { key: key(2), value: bytesOf(2) },
      ],
      { changelogOffset: 1 },
    );
    // In order: the last of a key counts.
    await store.write(
      [
        { key: key(2), value: null },
        { key: key(9), value: null },
        { key: key(3), value: Buffer.alloc(20_000, 3) },
        { key: key(3), value: bytesOf(3) },
      ],
      { changelogOffset: 2, inputs: { actions: 5 } },
    );
    const expectAll = ({
      get,
      count,
      meta,
    }: {
      get: (key: Uint8Array) => Uint8Array | undefined;
      count: number;
      meta: unknown;
    }) => {
      expect([1, 2, 3].map((i) => get(key(i)))).toEqual([bytesOf(1), undefined, bytesOf(3)]);
      expect([count, meta]).toEqual([2, { changelogOffset: 2, inputs: { actions: 5 } }]);
    };
    expectAll({ get: (of) => store.get(of), count: store.count, meta: store.meta() });
    const kept = store.get(key(1))!;
    store.get(key(3));
    expect(kept).toEqual(bytesOf(1));
    await store.close();

    const again = (await openStateStore({ path })).store;
    expectAll({ get: (of) => again.get(of), count: again.count, meta: again.meta() });
    await again.clear();
    expect([again.count, again.meta(), again.get(key(1))]).toEqual([0, undefined, undefined]);
    await again.write([], { changelogOffset: 0 });
    expect([again.count, again.meta()]).toEqual([0, { changelogOffset: 0 }]);
    await again.drop();
    expect(existsSync(path)).toBe(false);
  });

  it('writes all of a batch or nothing', async () => {
    const { store } = await openStateStore({ path });
    await store.write([{ key: key(1), value: bytesOf(1) }], { changelogOffset: 1 });
    const tooLong = { key: Buffer.alloc(5_000, 1), value: bytesOf(2) };
    await expect(store.write([{ key: key(1), value: bytesOf(5) }, tooLong], { changelogOffset: 2 })).rejects.toMatchObject({
      code: 'STORE_FAILED',
    });
    expect([store.get(key(1)), store.meta(), store.count]).toEqual([bytesOf(1), { changelogOffset: 1 }, 1]);
    await store.write([{ key: key(1), value: bytesOf(6) }], { changelogOffset: 3 });
    expect(store.get(key(1))).toEqual(bytesOf(6));
    await store.close();
  });

  it('grows over the map it began with', async () => {
    const { store } = await openStateStore({ path, mapSizeBytes: 1 << 20 });
    for (let n = 0; n < 20; n++)
      await store.write(
        Array.from({ length: 500 }, (_, i) => ({ key: key(500 * n + i), value: bytesOf(i) })),
        { changelogOffset: n },
      );
    expect(store.count).toBe(10_000);
    expect(store.get(key(9_999))).toEqual(bytesOf(499));
    await store.close();
  });
});

describe('the folder of a state store', () => {
  it('belongs to one process, whose pid the other is told', { timeout: 60_000 }, async () => {
    const holder = work('hold');
    await holder.opened();
    await expect(openStateStore({ path })).rejects.toThrowError(unavailable(`process ${holder.child.pid}:`));
    holder.child.kill('SIGKILL');
    await holder.ended;
    expect(existsSync(ownerFile())).toBe(true);
    const { store, rebuilt } = await openStateStore({ path });
    expect(rebuilt).toBe(undefined);
    await expect(openStateStore({ path })).rejects.toThrowError(unavailable(`process ${process.pid}:`));
    await store.close();
    expect(existsSync(ownerFile())).toBe(false);
  });

  const alter = async (change: (owner: Record<string, unknown>) => Record<string, unknown>, silentMs: number) => {
    await fill(10);
    const { store } = await openStateStore({ path });
    const owner = change(JSON.parse(readFileSync(ownerFile(), 'utf8')) as Record<string, unknown>);
    await store.close();
    writeFileSync(ownerFile(), JSON.stringify(owner));
    const at = new Date(Date.now() - silentMs);
    utimesSync(ownerFile(), at, at);
  };

  it('is free when its owner ended and another process has the pid', async () => {
    await alter((owner) => ({ ...owner, started: '1' }), 0);
    const { store, rebuilt } = await openStateStore({ path });
    expect([rebuilt, store.count]).toEqual([undefined, 10]);
    await store.close();
  });

  it('is not trusted after the machine stopped', async () => {
    await alter((owner) => ({ ...owner, boot: 'another' }), 60_000);
    const { store, rebuilt } = await openStateStore({ path });
    expect([rebuilt, store.count, store.meta()]).toEqual([expect.stringContaining('machine stopped'), 0, undefined]);
    await store.close();
  });

  it('is left to an owner in another container that still gives signs of life, and taken when it is silent', async () => {
    await alter((owner) => ({ ...owner, namespace: 'pid:[1]' }), 9_000);
    const beating = setTimeout(() => utimesSync(ownerFile(), new Date(), new Date()), 300);
    await expect(openStateStore({ path })).rejects.toThrowError(unavailable('in use'));
    clearTimeout(beating);
    const at = new Date(Date.now() - 9_000);
    utimesSync(ownerFile(), at, at);
    const { store, rebuilt } = await openStateStore({ path });
    expect([rebuilt, store.count]).toEqual([undefined, 10]);
    await store.close();
  });

  it('must be one that can be written', async () => {
    await fill(1);
    await expect(openStateStore({ path: join(dataFile(), 'below') })).rejects.toThrowError(unavailable('cannot be used'));
  });
});

describe('a process killed while it writes', () => {
  it('leaves the last write, whole', { timeout: 120_000 }, async () => {
    let last = 0;
    for (let round = 0; round < 6; round++) {
      const writer = work('write');
      await writer.wrote();
      await sleep(60 * ((round * 7) % 5));
      writer.child.kill('SIGKILL');
      expect(await writer.ended).toBe('SIGKILL');
      const told = writer.messages.reduce((most, { written = 0 }) => Math.max(most, written), last);
      const { store, rebuilt } = await openStateStore({ path });
      expect(rebuilt).toBe(undefined);
      const n = store.meta()?.changelogOffset ?? 0;
      expect(n).toBeGreaterThanOrEqual(told);
      expect(n).toBeGreaterThan(last);
      for (let i = 0; i < 40; i++)
        expect(store.get(key(i))).toEqual(i === n % 40 ? undefined : Buffer.alloc(300 + 97 * ((i * n) % 50), n % 251));
      expect(store.count).toBe(39);
      await store.close();
      last = n;
    }
  });
});

describe('a damaged file', () => {
  const reopened = async () => {
    const { store, rebuilt } = await openStateStore({ path });
    expect([store.count, store.meta()]).toEqual([0, undefined]);
    await store.write([{ key: key(1), value: bytesOf(1) }], { changelogOffset: 1 });
    expect(store.get(key(1))).toEqual(bytesOf(1));
    await store.close();
    return rebuilt;
  };

  it.each([0, 100, 4_096, 8_192, 50_000, 100_001])('cut off at %i bytes, is begun anew', async (length) => {
    await fill(2_000);
    truncateSync(dataFile(), length);
    expect(await reopened()).toMatch(/data file/);
  });

  it.each(['', 'garbage', 'x'.repeat(100_000), '\0'.repeat(20_000)])('of other contents is begun anew', async (contents) => {
    await fill(10);
    writeFileSync(dataFile(), contents);
    expect(await reopened()).toMatch(/data file/);
  });

  it('never ends the process that opens it after one that was killed', { timeout: 120_000 }, async () => {
    await fill(2_000);
    const { store: opened } = await openStateStore({ path });
    const owner = JSON.parse(readFileSync(ownerFile(), 'utf8')) as object;
    await opened.close();
    const good = readFileSync(dataFile());
    const pages = good.length / 4_096;
    const found = { begunAnew: 0, otherBytes: 0 };
    let state = 20;
    const random = (below: number) => {
      state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
      return Math.floor((state / 2 ** 32) * below);
    };
    for (let round = 0; round < 8; round++) {
      const bytes = Buffer.from(good);
      // In the heads of pages, in their lists of entries, and anywhere.
      for (let flips = 0; flips < 100; flips++)
        bytes[4_096 * random(pages) + random([24, 84, 4_096][round % 3]!)]! ^= 1 << random(8);
      writeFileSync(dataFile(), bytes);
      writeFileSync(ownerFile(), JSON.stringify({ ...owner, started: '1' }));
      const reader = work('read');
      expect(await reader.ended).toBe(0);
      const { values, failed } = reader.messages.at(-1)!;
      if (reader.messages[0]!.rebuilt !== undefined) found.begunAnew++;
      else if (failed === undefined)
        found.otherBytes += Number(values!.some((value, i) => value !== bytesOf(i).toString('latin1')));
      else expect(failed).toBe('STATE_CORRUPTED');
    }
    expect(found.begunAnew).toBeGreaterThan(3);
  });

  it('of another kind of lock does not matter', async () => {
    await fill(10);
    writeFileSync(join(path, 'lock.mdb'), 'x'.repeat(8_192));
    const { store } = await openStateStore({ path });
    expect(store.count).toBe(10);
    await store.close();
  });

  it('whose position is damaged, or lost, is begun anew', async () => {
    await fill(10, 123_456);
    const bytes = readFileSync(dataFile());
    for (let at = bytes.indexOf('123456'); at >= 0; at = bytes.indexOf('123456', at + 1)) bytes[at] = 0x39;
    writeFileSync(dataFile(), bytes);
    expect(await reopened()).toMatch(/position/);
  });

  it('is emptied whatever its pages hold', async () => {
    const { store } = await openStateStore({ path });
    const changes = Array.from({ length: 2_000 }, (_, i) => ({
      key: key(i),
      value: i % 50 === 0 ? Buffer.alloc(9_000) : bytesOf(i),
    }));
    await store.write(changes, { changelogOffset: 1 });
    await store.close();
    // Leaves of the tree say what they never held: LMDB would follow them for ever.
    const bytes = readFileSync(dataFile());
    const leaves: number[] = [];
    for (let at = 2 * 4096; at < bytes.length; at += 4096) if (bytes.readUInt16LE(at + 18) === 2) leaves.push(at);
    for (const at of leaves.slice(50, 100)) {
      bytes.writeUInt16LE(200, at + 20);
      bytes.fill(5, at + 24, at + 4096);
    }
    writeFileSync(dataFile(), bytes);
    const damaged = (await openStateStore({ path })).store;
    await damaged.clear();
    expect([damaged.count, damaged.meta(), damaged.get(key(1))]).toEqual([0, undefined, undefined]);
    await damaged.write([{ key: key(1), value: bytesOf(1) }], { changelogOffset: 2 });
    await damaged.close();
    const again = await openStateStore({ path });
    expect([again.rebuilt, again.store.get(key(1)), again.store.meta()]).toEqual([undefined, bytesOf(1), { changelogOffset: 2 }]);
    await again.store.close();
  });

  it('lets go of a folder that was removed under it', async () => {
    const { store } = await openStateStore({ path });
    await store.write([{ key: key(1), value: bytesOf(1) }], { changelogOffset: 1 });
    rmSync(path, { recursive: true });
    await store.close();
    const again = await openStateStore({ path });
    expect(again.store.meta()).toBeUndefined();
    await again.store.close();
  });
});
