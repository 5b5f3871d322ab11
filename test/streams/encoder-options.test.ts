import { describe, expect, it } from 'vitest';
import { type Config, parseConfig } from '../../schemas/config.ts';
import { encoderOptions } from '../../streams/replay.ts';

const optionsOf = (encoder: object) => encoderOptions(parseConfig({ bundle: 'b', encoder }, 'this test') as Config);

describe('options of the encoder by a configuration', () => {
  it('have a disk only where it has room', () => {
    expect(optionsOf({})).not.toHaveProperty('disk');
    expect(optionsOf({ disk: { path: '/ssd' } })).not.toHaveProperty('disk');
    expect(optionsOf({ disk: { budgetBytes: 5_000, path: '/ssd' } }).disk).toEqual({ folder: '/ssd', budgetBytes: 5_000 });
    expect(optionsOf({ disk: { budgetBytes: 5_000 } }).disk).toEqual({ folder: '.hstu/kv', budgetBytes: 5_000 });
  });

  it('leave out what the encoder has its own default for', () => {
    expect(optionsOf({})).not.toHaveProperty('pageLength');
    expect(optionsOf({ pageLength: 16, hostBudgetBytes: 0 })).toMatchObject({ pageLength: 16, hostBudgetBytes: 0 });
    expect(optionsOf({ maxBatchUsers: 7 }).schedule).toMatchObject({ maxRunUsers: 7, maxWaiting: 4_096 });
  });
});
