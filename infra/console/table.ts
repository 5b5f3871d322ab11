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
  const shown = rows.map((row) => columns.map((column) => show(column, row[column])));
  const widths = fitting(columns.map((column, i) => Math.max(column.length, ...shown.map((cells) => longestLine(cells[i]!)))));
  const drawn = new Table({
    head: columns.map((column, i) => wrapped(printable(column), widths?.[i])),
    colAligns: columns.map((column) => (numeric(column) ? 'right' : 'left')),
    style: { head: colors.isColorSupported ? ['cyan'] : [], border: colors.isColorSupported ? ['gray'] : [], compact: true },
  });
  for (const cells of shown) drawn.push(cells.map((text, i) => wrapped(text, widths?.[i])));
  return drawn.toString();
}

/** Lines of at most `width`, broken between words where there are any. */
function wrapped(text: string, width: number | undefined): string {
  if (width === undefined) return text;
  return text
    .split('\n')
    .flatMap((line) => {
      const lines: string[] = [];
      let rest = line;
      while (rest.length > width) {
        const space = rest.lastIndexOf(' ', width);
        const end = space > width / 3 ? space : width;
        lines.push(rest.slice(0, end));
        rest = rest.slice(end).trimStart();
      }
      return [...lines, rest];
    })
    .join('\n');
}

/** Of a column, beside its text. */
const PADDING = 2;
const LEAST_WIDTH = 6;

const longestLine = (text: string): number => Math.max(...text.split('\n').map((line) => line.length));

/** Widths that the terminal has room for: the widest columns give way. Undefined where all have room, or where nobody looks. */
function fitting(wanted: readonly number[]): number[] | undefined {
  const terminal = process.stdout.columns ?? Number(process.env['COLUMNS'] ?? Number.NaN);
  if (!(terminal > 0)) return undefined;
  const room = terminal - 1 - wanted.length * (PADDING + 1);
  const widths = [...wanted];
  let over = widths.reduce((sum, width) => sum + width, 0) - room;
  if (over <= 0) return undefined;
  while (over > 0) {
    const widest = widths.indexOf(Math.max(...widths));
    if (widths[widest]! <= LEAST_WIDTH) break;
    widths[widest]! -= 1;
    over -= 1;
  }
  return widths;
}

/** Names and values, one a line, values aligned. */
export function facts(entries: readonly (readonly [string, string])[]): string {
  const shown = entries.map(([name, value]) => [printable(name), printable(value)] as const);
  const width = Math.max(...shown.map(([name]) => name.length));
  return shown.map(([name, value]) => `  ${colors.dim(name.padEnd(width))}  ${value}`).join('\n');
}

export const heading = (title: string): string => `\n${colors.bold(printable(title))}`;
