import { randomBytes } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { compress, init } from '@bokuweb/zstd-wasm';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { ZstdDecoder, ZstdFault } from '../../infra/compression/zstd-decoder.ts';
import { readJsonLines } from '../../infra/files/read-records.ts';
import { BLOCK_BYTES, repeatedByte, skippable, stored } from '../support/zstd-frames.ts';

const folder = mkdtempSync(join(tmpdir(), 'hstu-zstd-'));
beforeAll(() => init());
afterAll(() => rmSync(folder, { recursive: true, force: true }));

async function unpack(packed: Uint8Array, pieceBytes = packed.length || 1): Promise<Buffer> {
  const decoder = await ZstdDecoder.open();
  try {
    const out: Buffer[] = [];
    for (let from = 0; from < packed.length; from += pieceBytes)
      for (const piece of decoder.push(packed.subarray(from, from + pieceBytes))) out.push(piece);
    decoder.end();
    return Buffer.concat(out);
  } finally {
    decoder.close();
  }
}

/** Compressible, and longer than several blocks. */
const text = Buffer.from(Array.from({ length: 60_000 }, (_, i) => `user ${i % 997} saw movie ${(i * 7919) % 9973}\n`).join(''));

describe('zstd', () => {
  it('gives back what was packed, however it is cut into pieces, in one frame or in several', () =>
    fc.assert(
      fc.asyncProperty(
        fc.array(
          fc.oneof(
            fc.uint8Array({ maxLength: 400 }),
            fc.nat(300_000).map((n) => text.subarray(n, n + 3 * n)),
          ),
          {
            maxLength: 4,
          },
        ),
        fc.constantFrom(1, 3, 9),
        fc.integer({ min: 100, max: 300_000 }),
        async (contents, level, pieceBytes) => {
          const packed = Buffer.concat(contents.map((content) => compress(content, level)));
          expect((await unpack(packed, pieceBytes)).equals(Buffer.concat(contents))).toBe(true);
        },
      ),
      { numRuns: 15 },
    ));

  it('takes pieces of one byte', async () => {
    const packed = compress(text.subarray(0, 5_000), 3);
    expect((await unpack(packed, 1)).equals(text.subarray(0, 5_000))).toBe(true);
  });

  it('takes frames that say no size, and passes over skippable ones', async () => {
    const blocks = [randomBytes(BLOCK_BYTES), randomBytes(10), Buffer.alloc(0), randomBytes(BLOCK_BYTES)];
    const packed = Buffer.concat([skippable(randomBytes(300_000)), stored(blocks), skippable(Buffer.alloc(0)), stored(blocks)]);
    expect((await unpack(packed, 1_000)).equals(Buffer.concat([...blocks, ...blocks]))).toBe(true);
    expect(await unpack(Buffer.alloc(0))).toEqual(Buffer.alloc(0));
  });

  it('serves several streams at once', async () => {
    const packed = compress(text, 3);
    const decoders = [await ZstdDecoder.open(), await ZstdDecoder.open()];
    const out: Buffer[][] = [[], []];
    for (let from = 0; from < packed.length; from += 1_000)
      for (const [i, decoder] of decoders.entries())
        for (const piece of decoder.push(packed.subarray(from, from + 1_000))) out[i]!.push(piece);
    for (const decoder of decoders) decoder.close();
    for (const pieces of out) expect(Buffer.concat(pieces).equals(text)).toBe(true);
  });

  it('says what is wrong', async () => {
    const packed = Buffer.from(compress(text, 3));
    await expect(unpack(packed.subarray(0, packed.length - 1))).rejects.toThrow(
      new ZstdFault('it is cut off: its last frame does not end'),
    );
    await expect(unpack(packed.subarray(0, 3))).rejects.toThrow(/cut off/);
    await expect(unpack(Buffer.concat([packed, Buffer.from('and text')]))).rejects.toThrow(/does not begin as zstd does/);
    await expect(unpack(stored([text.subarray(0, 10)], { windowLog: 28 }))).rejects.toThrow(
      /window is larger than 134217728 bytes/,
    );
    expect((await unpack(stored([text.subarray(0, 10)], { windowLog: 27 }))).length).toBe(10);
    await expect(unpack(stored([text.subarray(0, 10)], { claims: 2n ** 40n }))).rejects.toThrow(/damaged/);
  });

  it('never goes on for ever or throws anything else on bytes that were changed', () =>
    fc.assert(
      fc.asyncProperty(
        fc.nat(20_000),
        fc.array(fc.tuple(fc.nat(4_000), fc.nat(255)), { minLength: 1, maxLength: 5 }),
        async (n, changes) => {
          const packed = Buffer.from(compress(text.subarray(n, n + 4_000), 3));
          for (const [at, byte] of changes) packed[at % packed.length] = byte;
          await unpack(packed, 777).catch((error: unknown) => expect(error).toBeInstanceOf(ZstdFault));
        },
      ),
      { numRuns: 100 },
    ));
});

describe('a file of a name that ends in .zst', () => {
  it('is never held whole: 12 kB that are one line of 400 MB become one record that is too long', async () => {
    const path = join(folder, 'bomb.jsonl.zst');
    const blocks = Math.ceil(4e8 / BLOCK_BYTES);
    writeFileSync(
      path,
      Buffer.concat([stored([Buffer.from('x')]), repeatedByte(0x20, blocks), stored([Buffer.from('\n{"a":1}\n')])]),
    );
    const before = process.memoryUsage.rss();
    const lengths: number[] = [];
    for await (const { value } of readJsonLines(path, { maxRecordBytes: 1_000_000 })) lengths.push((value as string).length);
    expect(lengths).toEqual([1_000_001, 7]);
    expect(process.memoryUsage.rss() - before).toBeLessThan(200 * 2 ** 20);
  });

  it('is refused with its path when it is cut off', async () => {
    const path = join(folder, 'cut.jsonl.zst');
    writeFileSync(path, compress(text, 3).subarray(0, 50_000));
    await expect(drain(path)).rejects.toMatchObject({
      code: 'SOURCE_UNREADABLE',
      message: `cannot read source file '${path}': it is cut off: its last frame does not end`,
    });
    // What does not begin as zstd does is what it is, whatever its name.
    writeFileSync(path, text);
    await drain(path);
  });
});

async function drain(path: string): Promise<void> {
  for await (const _ of readJsonLines(path));
}
