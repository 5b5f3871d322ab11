import { expect, it } from 'vitest';
import { type Frame, flameGraph } from '../../bench/flame-graph.ts';

const frame = (name: string, us: number, ...children: Frame[]): Frame => ({
  name,
  us,
  children: new Map(children.map((child) => [child.name, child])),
});
const widths = (svg: string) =>
  Object.fromEntries(
    [...svg.matchAll(/<title>(.*?): .*?<\/title><rect [^>]*width="([\d.]+)"/g)].map(([, name, width]) => [name, Number(width)]),
  );

it('a frame is as wide as its share of all threads together, and what cannot be seen is left out', () => {
  const svg = flameGraph('t', [frame('one', 750, frame('half', 375), frame('dust', 0.1)), frame('other', 250)]);
  const drawn = widths(svg);
  expect(Object.keys(drawn).sort()).toEqual(['half', 'one', 'other']);
  expect(drawn['one']! / drawn['other']!).toBeCloseTo(3, 1);
  expect(drawn['one']! / drawn['half']!).toBeCloseTo(2, 1);
});

it('writes names as text', () => {
  const svg = flameGraph('a < b & c', [frame('get <anonymous> & more', 1000)]);
  expect(svg).toContain('a &lt; b &amp; c');
  expect(svg).not.toContain('<anonymous>');
});
