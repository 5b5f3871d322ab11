/** What the group and the operator say to an instance, at the worst moments. */
import { describe, expect, it, vi } from 'vitest';
import type { MembershipHandlers } from '../../infra/kafka/group-membership.ts';
import { PipelineError } from '../../schemas/errors.ts';
import { LiveStream, type LiveStreamParts } from '../../streams/live/live-stream.ts';
import type { FlowOptions } from '../../streams/live.ts';

const world = vi.hoisted(() => ({
  group: undefined as unknown as MembershipHandlers,
  flowing: [] as number[],
  drained: Promise.resolve(),
  /** What the next attempts to join end with. */
  refusals: [] as Error[],
  joins: 0,
  closing: Promise.resolve(),
}));

vi.mock('../../infra/kafka/group-membership.ts', () => ({
  GroupMembership: class {
    constructor(_kafka: unknown, _config: unknown, _topics: unknown, handlers: MembershipHandlers) {
      world.group = handlers;
    }
    async join() {
      const error = world.refusals.shift();
      if (error !== undefined) throw error;
      world.joins += 1;
    }
    async leave() {}
  },
}));
vi.mock('../../streams/live/partition-task.ts', () => ({
  PartitionTask: { open: async (partition: number) => ({ partition, close: () => world.closing }) },
}));
vi.mock('../../streams/live.ts', () => ({
  flow: async ({ tasks, drain }: FlowOptions) => {
    world.flowing = [...tasks.keys()].sort();
    await new Promise((resolve) => drain.addEventListener('abort', resolve));
    await world.drained;
    world.flowing = [];
  },
}));

describe('live stream', () => {
  it('carries out what the group said last, also when handing over took longer than the next rebalance', async () => {
    const parts = { task: { config: { kafka: { drainTimeoutMs: 1_000 } }, topics: [] }, pipeline: {}, observer: {} };
    const stream = new LiveStream(parts as unknown as LiveStreamParts);
    const stopping = new AbortController();
    const ended = stream.run(stopping.signal);
    await vi.waitFor(() => expect(world.group).toBeDefined());
    world.group.onAssigned([0, 1], 'member-1');
    await vi.waitFor(() => expect(world.flowing).toEqual([0, 1]));

    let closed: () => void = () => undefined;
    world.closing = new Promise<void>((resolve) => {
      closed = resolve;
    });
    await world.group.onRebalance();
    world.group.onAssigned([0, 1], 'member-2');
    await new Promise((resolve) => setTimeout(resolve, 10));
    await world.group.onRebalance();
    closed();
    await new Promise((resolve) => setTimeout(resolve, 10));
    world.group.onAssigned([0, 1, 2, 3], 'member-2');
    await vi.waitFor(() => expect(world.flowing).toEqual([0, 1, 2, 3]));
    stopping.abort();
    await ended;
    expect(stream.state).toBe('STOPPED');
  });

  it('is DRAINING while it finishes what was read, not afterwards', async () => {
    const states: string[] = [];
    const parts = {
      task: { config: { kafka: { drainTimeoutMs: 1_000 } }, topics: [] },
      pipeline: {},
      observer: { onState: (state: string) => states.push(state) },
    };
    const stream = new LiveStream(parts as unknown as LiveStreamParts);
    const stopping = new AbortController();
    const ended = stream.run(stopping.signal);
    await new Promise((resolve) => setTimeout(resolve, 10));
    world.group.onAssigned([0], 'member-1');
    await vi.waitFor(() => expect(world.flowing).toEqual([0]));
    let drained: () => void = () => undefined;
    world.drained = new Promise<void>((resolve) => {
      drained = resolve;
    });
    stopping.abort();
    expect(stream.state).toBe('DRAINING');
    expect(world.flowing).toEqual([0]);
    drained();
    await ended;
    expect(states).toEqual(['RESTORING', 'RUNNING', 'DRAINING', 'STOPPED']);
  });

  it('joins again until brokers that were away let it, and not where that cannot help', async () => {
    const parts = { task: { config: { kafka: { drainTimeoutMs: 1_000 } }, topics: [] }, pipeline: {}, observer: {} };
    const stream = new LiveStream(parts as unknown as LiveStreamParts);
    world.joins = 0;
    const ended = stream.run(new AbortController().signal);
    await vi.waitFor(() => expect(world.joins).toBe(1));
    const away = new PipelineError('KAFKA_UNAVAILABLE', 'no broker answers');
    world.refusals.push(away, away);
    world.group.onError(away);
    await vi.waitFor(() => expect(world.joins).toBe(2), { timeout: 5_000 });
    world.refusals.push(new PipelineError('KAFKA_AUTHORIZATION', 'no right to read'));
    world.group.onError(away);
    await expect(ended).rejects.toThrow('no right to read');
    expect(stream.state).toBe('FAILED');
  });
});
