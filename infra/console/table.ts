/** Tables on a terminal. */
import Table from 'cli-table3';
import colors from 'picocolors';
import { cell } from './format.ts';
import { printable } from './printable.ts';

/** Rows of one shape under their own keys, numbers to the right. */
export function table(rows: readonly Readonly<Record<string, unknown>>[]): string {
  const columns = Object.keys(rows[0] ?? {});
  if (columns.length === 0) return colors.dim('(no rows)');
  const numeric = (column: string) => rows.every((row) => row[column] === null || typeof row[column] === 'number');
  // A year is a name, not a quantity.
  const show = (column: string, value: unknown) => (column === 'year' ? printable(String(value)) : cell(value));
  const drawn = new Table({
    head: columns.map(printable),
    colAligns: columns.map((column) => (numeric(column) ? 'right' : 'left')),
    style: { head: colors.isColorSupported ? ['cyan'] : [], border: colors.isColorSupported ? ['gray'] : [], compact: true },
  });
  for (const row of rows) drawn.push(columns.map((column) => show(column, row[column])));
  return drawn.toString();
}

/** Names and values, one a line, values aligned. */
export function facts(entries: readonly (readonly [string, string])[]): string {
  const shown = entries.map(([name, value]) => [printable(name), printable(value)] as const);
  const width = Math.max(...shown.map(([name]) => name.length));
  return shown.map(([name, value]) => `  ${colors.dim(name.padEnd(width))}  ${value}`).join('\n');
}

export const heading = (title: string): string => `\n${colors.bold(printable(title))}`;
