import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { readSafetensors, sizeOf, type Tensor, writeSafetensors } from '../../../models/hstu/safetensors.ts';
import { PipelineError } from '../../../schemas/errors.ts';

const tensors: fc.Arbitrary<Map<string, Tensor>> = fc
  .uniqueArray(
    fc.string({ minLength: 1 }).filter((name) => name !== '__metadata__' && name !== '__proto__'),
    { maxLength: 5 },
  )
  .chain((names) =>
    fc.tuple(
      ...names.map((name) =>
        fc
          .array(fc.integer({ min: 0, max: 4 }), { maxLength: 3 })
          .chain((shape) =>
            fc
              .array(fc.float({ noNaN: true }), { minLength: sizeOf(shape), maxLength: sizeOf(shape) })
              .map((values): [string, Tensor] => [name, { shape, data: Float32Array.from(values) }]),
          ),
      ),
    ),
  )
  .map((entries) => new Map(entries));

const file = (header: string, body = new Uint8Array(0)): Uint8Array => {
  const json = new TextEncoder().encode(header);
  const out = new Uint8Array(8 + json.length + body.length);
  new DataView(out.buffer).setBigUint64(0, BigInt(json.length), true);
  out.set(json, 8);
  out.set(body, 8 + json.length);
  return out;
};

function refusal(bytes: Uint8Array): string {
  try {
    readSafetensors(bytes, 'FILE');
  } catch (error) {
    expect(error).toBeInstanceOf(PipelineError);
    expect((error as PipelineError).code).toBe('BUNDLE_INVALID');
    return (error as PipelineError).message;
  }
  return 'read';
}

describe('safetensors', () => {
  it('reads what it wrote', () => {
    fc.assert(fc.property(tensors, (map) => void expect(readSafetensors(writeSafetensors(map), 'FILE')).toEqual(map)));
  });

  it('reads a file at any place of its memory', () => {
    const map = new Map([['a', { shape: [2], data: Float32Array.of(1, 2) }]]);
    const bytes = writeSafetensors(map);
    const shifted = new Uint8Array(bytes.length + 3);
    shifted.set(bytes, 3);
    expect(readSafetensors(shifted.subarray(3), 'FILE')).toEqual(map);
  });

  it('refuses every beginning of a file that is not the whole file, and never fails otherwise', () => {
    const map = new Map(
      ['x', 'y', 'z'].map((name, i) => [name, { shape: [2, i + 1], data: new Float32Array(2 * (i + 1)).fill(i) }]),
    );
    const bytes = writeSafetensors(map);
    for (let length = 0; length < bytes.length; length++)
      expect(refusal(bytes.subarray(0, length)), `${length} of ${bytes.length} bytes`).toMatch(/^FILE: .*(truncated|not JSON)/);
    fc.assert(
      fc.property(tensors, fc.nat(), (some, cut) => {
        const whole = writeSafetensors(some);
        const hasValues = [...some.values()].some(({ data }) => data.length > 0);
        const length = cut % (hasValues ? whole.length : whole.length - 1);
        expect(refusal(whole.subarray(0, Math.min(length, whole.length - 1)))).not.toBe('read');
      }),
    );
  });

  it('answers any bytes with tensors or a refusal', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 64 }), (bytes) => void refusal(bytes)),
      { numRuns: 300 },
    );
    fc.assert(
      fc.property(fc.json(), fc.uint8Array({ maxLength: 16 }), (header, body) => void refusal(file(header, body))),
      { numRuns: 500 },
    );
    const entry = fc.record({
      dtype: fc.constant('F32'),
      shape: fc.array(fc.oneof(fc.integer(), fc.anything())),
      data_offsets: fc.array(fc.oneof(fc.integer(), fc.double(), fc.anything())),
    });
    fc.assert(
      fc.property(
        entry,
        (one) => void refusal(file(JSON.stringify({ one: JSON.parse(JSON.stringify(one)) as unknown }), new Uint8Array(32))),
      ),
      { numRuns: 300 },
    );
  });

  it.each([
    ['an empty file', new Uint8Array(0), 'FILE: truncated: 0 bytes, a safetensors file has at least 8'],
    [
      'a huge header',
      Uint8Array.of(255, 255, 255, 255, 255, 255, 255, 127, 0),
      'FILE: truncated or not a safetensors file: header of',
    ],
    ['a header that is not JSON', file('{"a"'), 'FILE: the header is not JSON'],
    ['a header that is null', file('null'), 'FILE: the header is not an object'],
    ['a header that is a list', file('[1]'), 'FILE: the header is not an object'],
    ['an entry that is null', file('{"a":null}'), 'FILE: tensor a: header entry without shape or data_offsets'],
    [
      'a shape and bytes that differ',
      file('{"a":{"dtype":"F32","shape":[3],"data_offsets":[0,8]}}', new Uint8Array(8)),
      'tensor a: shape [3] needs 12 bytes, has 8',
    ],
    [
      'bytes backwards',
      file('{"a":{"dtype":"F32","shape":[2],"data_offsets":[8,0]}}', new Uint8Array(8)),
      'tensor a: impossible offsets 8..0',
    ],
    [
      'a negative shape',
      file('{"a":{"dtype":"F32","shape":[-1,-2],"data_offsets":[0,8]}}', new Uint8Array(8)),
      'tensor a: impossible shape [-1,-2]',
    ],
    [
      'every tensor at fault',
      file(
        '{"a":{"dtype":"F16","shape":[2],"data_offsets":[0,4]},"b":{"dtype":"BF16","shape":[2],"data_offsets":[0,4]}}',
        new Uint8Array(8),
      ),
      'FILE: tensor a: dtype F16, allowed: F32; tensor b: dtype BF16, allowed: F32',
    ],
  ])('names the fault: %s', (_, bytes, message) => expect(refusal(bytes)).toContain(message));

  it('takes metadata for what it is', () => {
    const bytes = file('{"__metadata__":{"format":"pt"},"a":{"dtype":"F32","shape":[],"data_offsets":[0,4]}}', new Uint8Array(4));
    expect(readSafetensors(bytes, 'FILE')).toEqual(new Map([['a', { shape: [], data: Float32Array.of(0) }]]));
  });
});
