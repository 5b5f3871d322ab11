import { describe, expect, it } from 'vitest';
import { sparkline, sparklines } from '../../infra/console/sparkline.ts';

describe('a curve in a line', () => {
  it('goes from the least to the greatest, with gaps', () => {
    expect(sparkline([0, 1, 2, 3, 4, 5, 6, 7])).toBe('▁▂▃▄▅▆▇█');
    expect(sparkline([5, null, -5])).toBe('█ ▁');
    expect(sparkline([2, 2])).toBe('▄▄');
  });

  it('is averaged where there are more values than room', () => {
    expect(sparkline([0, 0, 10, 10, 5, null], 3)).toBe('▁█▅');
  });

  it('tells its name and its bounds', () => {
    expect(
      sparklines([
        ['a', [1, 3]],
        ['long', [null]],
      ]),
    ).toBe('  a     ▁█  1 … 3\n  long  –');
  });
});
