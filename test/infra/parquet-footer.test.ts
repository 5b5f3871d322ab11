import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import fc from 'fast-check';
import { afterAll, describe, expect, it } from 'vitest';
import { checkFooter, checkParquetFooter } from '../../infra/files/parquet-footer.ts';

const GOLDEN = fileURLToPath(new URL('../golden/parquet/', import.meta.url));
const golden = readdirSync(GOLDEN).filter((name) => name.endsWith('.parquet'));
const folder = mkdtempSync(join(tmpdir(), 'hstu-parquet-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

function parquet(footer: Uint8Array, data = Buffer.alloc(0), claims = footer.length): string {
  const length = Buffer.alloc(4);
  length.writeUInt32LE(claims);
  const path = join(folder, 'x.parquet');
  writeFileSync(path, Buffer.concat([Buffer.from('PAR1'), data, footer, length, Buffer.from('PAR1')]));
  return path;
}
const refusal = (path: string) =>
  checkParquetFooter(path).then(
    () => 'taken',
    (error: { code: string; message: string }) => {
      expect(error.code).toBe('SOURCE_UNREADABLE');
      expect(error.message).toContain(`cannot read source file '${path}' as Parquet: `);
      return error.message.split(' as Parquet: ')[1];
    },
  );
/** Fields of the compact protocol: the head of a list of `count` (as a varint) structs in field 2, the schema. */
const schemaOf = (...count: number[]) => Buffer.from([0x15, 0x02, 0x19, 0xfc, ...count]);
const TWO_TO_31 = [0xff, 0xff, 0xff, 0xff, 0x07];

describe('a Parquet footer', () => {
  it.each(golden)('of %s, as another writer made it, is taken', async (name) => {
    await expect(checkParquetFooter(join(GOLDEN, name))).resolves.toBeUndefined();
  });

  it('that claims more than its bytes can hold is refused, and costs nothing', async () => {
    // 21 bytes, and a list of two thousand million elements.
    expect(await refusal(parquet(schemaOf(...TWO_TO_31)))).toBe('at byte 9 of 9 is a list of 2147483647, with 0 bytes left');
    expect(await refusal(parquet(Buffer.alloc(8), Buffer.alloc(10), 2 ** 31))).toBe(
      'its footer claims 2147483648 bytes, and the file has 30',
    );
    expect(await refusal(parquet(Buffer.from([0x18, ...TWO_TO_31])))).toMatch(/a string of 2147483647/);
    expect(await refusal(parquet(Buffer.from([0x1b, ...TWO_TO_31, 0x55])))).toMatch(/a map of 2147483647/);
    expect(await refusal(parquet(Buffer.alloc(200_000, 0x1c)))).toBe('at byte 33 of 200000 is structs nested more than 32 deep');
    expect(await refusal(parquet(Buffer.alloc(200_000, 0x19)))).toMatch(/lists nested more than 32 deep/);
    expect(await refusal(parquet(Buffer.from([0x16, ...Array<number>(12).fill(0xff)])))).toMatch(
      /a number of more than 10 bytes/,
    );
    expect(await refusal(parquet(Buffer.from([0x1e, 0])))).toMatch(/type 14, which there is none of/);
    // An element without children, where the root says it has 2^30.
    expect(await refusal(parquet(Buffer.from([0x29, 0x1c, 0x55, 0x80, 0x80, 0x80, 0x80, 0x08, 0x00, 0x00])))).toBe(
      'its schema has 1 elements, and they claim 1073741824 children',
    );
  });

  it('of what is no Parquet file, or one cut off, says so', async () => {
    const path = join(folder, 'x.parquet');
    writeFileSync(path, 'PAR1');
    expect(await refusal(path)).toBe('it is 4 bytes long, and a Parquet file at least 12');
    writeFileSync(path, readFileSync(join(GOLDEN, golden[0]!)).subarray(0, -100));
    expect(await refusal(path)).toBe('it does not end with PAR1: it is no Parquet file, or cut off');
    writeFileSync(path, 'PAR1\0\0\0\0\0\0\0\0PARE');
    expect(await refusal(path)).toBe('its footer is encrypted');
    await expect(checkParquetFooter(join(folder, 'none'))).rejects.toMatchObject({
      message: expect.stringContaining('there is no such file'),
    });
  });

  it('whose column chunks lie outside the file is refused', async () => {
    const whole = readFileSync(join(GOLDEN, 'nested-none.parquet'));
    const footerBytes = whole.readUInt32LE(whole.length - 8);
    const footer = whole.subarray(whole.length - 8 - footerBytes, whole.length - 8);
    expect(await refusal(parquet(footer, whole.subarray(4, 200)))).toMatch(
      /column chunk \d+ (are at byte|claims) .*data ends at 200$/,
    );
  });

  it('that was changed anywhere is taken or refused, at once', () => {
    const footers = golden.map((name) => {
      const whole = readFileSync(join(GOLDEN, name));
      return {
        size: whole.length,
        footer: whole.subarray(whole.length - 8 - whole.readUInt32LE(whole.length - 8), whole.length - 8),
      };
    });
    fc.assert(
      fc.property(
        fc.constantFrom(...footers),
        fc.array(fc.tuple(fc.nat(100_000), fc.nat(255)), { minLength: 1, maxLength: 6 }),
        ({ footer, size }, changes) => {
          const changed = Buffer.from(footer);
          for (const [at, byte] of changes) changed[at % changed.length] = byte;
          try {
            checkFooter(changed, size);
          } catch (error) {
            expect(error).toBeInstanceOf(RangeError);
          }
        },
      ),
      { numRuns: 1_000 },
    );
  });
});
