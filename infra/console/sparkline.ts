/** Curves in a line of text: what a column of figures does, at a glance. */
import { cell } from './format.ts';
import { printable } from './printable.ts';

const BARS = '▁▂▃▄▅▆▇█';

/**
 * A bar a value, the least at the bottom and the greatest at the top; a gap for one that is missing. More values than
 * `width` are averaged in groups.
 */
export function sparkline(values: readonly (number | null)[], width = 60): string {
  const points = values.length <= width ? values : Array.from({ length: width }, (_, i) => meanOf(values, i, width));
  const known = points.filter((value) => value !== null);
  const least = Math.min(...known);
  const span = Math.max(...known) - least;
  return points
    .map((value) => (value === null ? ' ' : BARS[span === 0 ? 3 : Math.min(7, Math.floor((8 * (value - least)) / span))]!))
    .join('');
}

function meanOf(values: readonly (number | null)[], i: number, width: number): number | null {
  const from = Math.floor((i * values.length) / width);
  const to = Math.max(from + 1, Math.floor(((i + 1) * values.length) / width));
  const group = values.slice(from, to).filter((value) => value !== null);
  return group.length === 0 ? null : group.reduce((sum, value) => sum + value, 0) / group.length;
}

/** Curves under one another: name, curve, least and greatest value. */
export function sparklines(curves: readonly (readonly [name: string, values: readonly (number | null)[]])[]): string {
  const named = curves.map(([name, values]) => [printable(name), values] as const);
  const width = Math.max(...named.map(([name]) => name.length));
  return named
    .map(([name, values]) => {
      const known = values.filter((value) => value !== null);
      if (known.length === 0) return `  ${name.padEnd(width)}  –`;
      return `  ${name.padEnd(width)}  ${sparkline(values)}  ${cell(Math.min(...known))} … ${cell(Math.max(...known))}`;
    })
    .join('\n');
}
