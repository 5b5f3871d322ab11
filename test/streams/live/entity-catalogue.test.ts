import { describe, expect, it } from 'vitest';
import type { Bundle } from '../../../models/hstu/bundle.ts';
import { randomBundle } from '../../../models/hstu/random-bundle.ts';
import type { SourceRecord } from '../../../schemas/action.ts';
import { createEntityDecoder } from '../../../schemas/avro/entity-decoder.ts';
import { EntityCatalogue } from '../../../streams/live/entity-catalogue.ts';

const bundleOf = (content: number, vocabularySize = 6) =>
  randomBundle({ dimension: 16, layers: 1, heads: 1, maxSequenceLength: 8, vocabularySize, content: { dimension: content } });
const bundle = bundleOf(2);

/** Records of one partition by their offset: `[key, value]`, a value as JSON fields, as text, or null. */
function log(partition: number, said: readonly (readonly [string, object | string | null])[]): SourceRecord[] {
  return said.map(([entity, value], offset) => ({
    position: { topic: 'entities', partition, offset },
    key: Buffer.from(entity),
    value: value === null ? null : Buffer.from(typeof value === 'string' ? value : JSON.stringify({ entity, ...value })),
  }));
}

function read(
  records: readonly SourceRecord[],
  file: readonly { entity: string; content?: Float32Array; retired?: boolean }[] = [],
) {
  const rejects: string[] = [];
  const catalogue = new EntityCatalogue({
    decode: createEntityDecoder({}),
    onRejected: ({ partition, offset }, reason) => rejects.push(`${partition}/${offset} ${reason}`),
  });
  catalogue.useFile(file);
  catalogue.take(records, bundle);
  return { rejects, catalogue, over: (of: Bundle) => catalogue.over(of).catalogue };
}

const names = (of: ReturnType<ReturnType<typeof read>['over']>) => of?.entities;
const content = (a: number, b: number) => ({ content: [a, b] });

describe('the catalogue of a topic', () => {
  it('is of the newest record of each key, whenever and in whichever turn of the partitions it is read', () => {
    const first = log(0, [
      ['item:new', content(1, 2)],
      ['item:gone', content(3, 4)],
      ['item:1', { retired: true }],
      ['item:late', content(5, 6)],
      ['item:gone', null],
      ['item:new', content(7, 8)],
      ['item:1', { popularity: 3 }],
    ]);
    const second = log(1, [
      ['item:other', content(2, 2)],
      ['item:2', { retired: true }],
    ]);
    const lived = read([...first.slice(0, 3), ...second, ...first.slice(3)]).over(bundle);
    const compacted = [...second, ...first.filter(({ position }) => position.offset >= 3)];
    expect(read(compacted).over(bundle)).toEqual(lived);
    expect(names(lived)).toEqual(['item:late', 'item:new', 'item:other']);
    expect([...lived!.retired]).toEqual([2]);
    // What it is told apart by: one record fewer is another catalogue.
    expect(read(compacted.slice(0, -1)).over(bundle)!.digest).not.toBe(lived!.digest);
  });

  it('takes back what a faulty record’s key said, as a restart would, and counts by reason; the rest goes on', () => {
    const { rejects, over } = read(
      log(0, [
        ['item:new', content(1, 2)],
        ['item:new', '{"entity":"item:new","content":[1,null]}'],
        ['item:wide', { content: [1, 2, 3] }],
        ['item:bare', {}],
        ['show:1', content(1, 2)],
        ['item:odd', 'neither'],
        ['item:good', content(1, 2)],
      ]),
    );
    expect(names(over(bundle))).toEqual(['item:good']);
    expect(rejects).toEqual([
      '0/1 content-not-finite',
      '0/2 content-dimension',
      '0/3 no-content',
      '0/4 unknown-namespace',
      '0/5 malformed',
    ]);
  });

  it('lies over the file, and gives way to it again', () => {
    const file = [
      { entity: 'item:filed', content: Float32Array.of(1, 1) },
      { entity: 'item:3', retired: true },
    ];
    expect([...read([], file).over(bundle)!.retired]).toEqual([3]);
    const retired = log(0, [
      ['item:filed', { retired: true }],
      ['item:3', { popularity: 1 }],
    ]);
    expect(names(read(retired, file).over(bundle))).toEqual([]);
    expect([...read(retired, file).over(bundle)!.retired]).toEqual([]);
    const back = read([...retired, ...log(0, [['item:filed', null]])], file).over(bundle);
    expect(names(back)).toEqual(['item:filed']);
  });

  it('is judged anew for the next model, which may take what this one cannot', () => {
    const { over, rejects } = read(
      log(0, [
        ['item:wide', { content: [1, 2, 3] }],
        ['item:7', content(1, 2)],
      ]),
    );
    expect(names(over(bundle))).toEqual(['item:7']);
    expect(names(over(bundleOf(3)))).toEqual(['item:wide']);
    // Trained with it, it is none of the new ones.
    expect(names(over(bundleOf(2, 7)))).toEqual([]);
    expect(names(over(bundle))).toEqual(['item:7']);
    expect(rejects).toEqual(['0/0 content-dimension']);
  });

  it('leaves a bundle as it is of which nothing is said', () => {
    expect(read([]).catalogue.over(bundle)).toBe(bundle);
    expect(read(log(0, [['item:new', null]])).catalogue.over(bundle)).toBe(bundle);
  });
});
