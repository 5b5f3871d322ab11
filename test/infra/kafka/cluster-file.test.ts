import { expect, it } from 'vitest';
import { newClusterId } from '../../../infra/kafka/broker/cluster-file.ts';

it('no cluster id begins like an option: one in 64 would', () => {
  const ids = Array.from({ length: 5_000 }, newClusterId);
  expect(ids.filter((id) => !/^\w[\w-]{21}$/.test(id))).toEqual([]);
  expect(new Set(ids).size).toBe(ids.length);
});
