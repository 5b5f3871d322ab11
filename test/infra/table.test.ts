import { afterEach, describe, expect, it, vi } from 'vitest';
import { table } from '../../infra/console/table.ts';

describe('a table', () => {
  afterEach(() => vi.unstubAllEnvs());
  const rows = [
    { name: 'a-name-without-spaces-that-is-long', says: 'a sentence of some words that does not fit beside it', n: 12_345 },
  ];
  const widthOf = (text: string) => Math.max(...text.split('\n').map((line) => line.length));

  it('fits the terminal, lines broken between words, nothing left out', () => {
    for (const columns of [40, 60, 90]) {
      vi.stubEnv('COLUMNS', String(columns));
      const drawn = table(rows);
      expect(widthOf(drawn)).toBeLessThanOrEqual(columns);
      const letters = drawn.replace(/[^a-z]/g, '');
      for (const row of rows) expect([...row.says.replace(/[^a-z]/g, '')].every((letter) => letters.includes(letter))).toBe(true);
    }
    expect(table(rows)).toContain('12,345');
  });

  it('is as wide as it is where nobody looks', () => {
    vi.stubEnv('COLUMNS', '');
    expect(table(rows)).toContain(rows[0]!.says);
  });
});
