/** What the group and the fetcher say to a sink, at the worst moments. */
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import type { MembershipHandlers } from '../../infra/kafka/group-membership.ts';
import { PipelineError } from '../../schemas/errors.ts';
import { SinkStream, type SinkStreamParts } from '../../streams/sink/sink-stream.ts';

const world = vi.hoisted(() => ({
  group: undefined as unknown as MembershipHandlers,
  /** What the next attempts to join end with. */
  refusals: [] as Error[],
  joins: 0,
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
    async commit() {}
    async leave() {}
  },
}));

const away = new PipelineError('KAFKA_UNAVAILABLE', 'no broker answers');

describe('sink stream', () => {
  let stored: number;
  let waiting: number;
  let storing: readonly number[];
  let states: string[];
  let recovered: string[];
  let failsToStore: PipelineError | undefined;
  let stopping: AbortController;
  let sink: SinkStream;
  let ended: Promise<void>;

  /** A fetcher that has what it is given, and a writer that counts it. */
  beforeEach(async () => {
    [stored, waiting, storing, states, recovered, failsToStore] = [0, 0, [], [], [], undefined];
    world.joins = 0;
    world.refusals.length = 0;
    const reading = new Set<number>();
    const parts = {
      config: { drainTimeoutMs: 1_000 },
      topics: ['t'],
      maxRecords: 1,
      maxDelayMs: 1,
      maxCommitBytes: 1_000,
      fetcher: {
        offsets: async () => ({ first: 0, end: 0 }),
        assign: ({ partition }: { partition: number }) => reading.add(partition),
        unassign: ({ partition }: { partition: number }) => reading.delete(partition),
        progress: ({ partition }: { partition: number }) =>
          reading.has(partition) ? { buffered: waiting, bytes: waiting } : undefined,
        take: () => {
          waiting -= 1;
          return { records: [{}], nextOffset: stored + 1 };
        },
      },
      writer: {
        start: async () => new Map(),
        commit: async () => {
          if (failsToStore !== undefined) throw failsToStore;
          stored += 1;
          return {};
        },
      },
      observer: {
        onState: (state: string) => {
          states.push(state);
          if (state === 'RUNNING') storing = sink.owned().map(({ partition }) => partition);
        },
        onRecovering: ({ message }: PipelineError) => recovered.push(message),
      },
    };
    sink = new SinkStream(parts as unknown as SinkStreamParts);
    stopping = new AbortController();
    ended = sink.run(stopping.signal);
    await vi.waitFor(() => expect(world.joins).toBe(1));
  });
  afterEach(async () => {
    stopping.abort();
    await ended.catch(() => undefined);
  });

  async function stores(): Promise<void> {
    const before = stored;
    waiting = 1;
    await vi.waitFor(
      () => {
        sink.notify();
        expect(stored).toBe(before + 1);
      },
      { timeout: 5_000 },
    );
  }

  it('joins again until brokers that were away let it, and stores on', async () => {
    world.group.onAssigned([0], 'member-1');
    await stores();
    world.refusals.push(away, away);
    world.group.onError(away);
    await vi.waitFor(() => expect(world.joins).toBe(2), { timeout: 5_000 });
    world.group.onAssigned([0, 1], 'member-2');
    await stores();
    expect(recovered).toEqual(['no broker answers', 'no broker answers', 'no broker answers']);
  });

  it('ends where joining again cannot help', async () => {
    world.refusals.push(new PipelineError('KAFKA_AUTHORIZATION', 'no right to read'));
    world.group.onError(away);
    await expect(ended).rejects.toThrow('no right to read');
    expect(states.at(-1)).toBe('FAILED');
  });

  it('meets a fault of its reading that came while the group was rebalancing, and stores on', async () => {
    world.group.onAssigned([0], 'member-1');
    await stores();
    await world.group.onRebalance();
    sink.fail(away);
    world.group.onAssigned([0], 'member-1');
    await stores();
    expect(recovered).toEqual(['no broker answers']);
  });

  it('goes on from a fault of its reading under way, not from one of ClickHouse that waiting does not mend', async () => {
    world.group.onAssigned([0], 'member-1');
    await stores();
    sink.fail(away);
    await stores();
    expect(recovered).toEqual(['no broker answers']);
    failsToStore = new PipelineError('STORE_FAILED', 'its disk is full');
    waiting = 1;
    sink.notify();
    await expect(ended).rejects.toThrow('its disk is full');
    expect(states).toEqual(['RUNNING', 'RESTORING', 'RUNNING', 'FAILED']);
  });

  it('carries out what the group said last, and says that it drains before it is done', async () => {
    world.group.onAssigned([0, 1], 'member-1');
    await vi.waitFor(() => expect(storing).toEqual([0, 1]));
    await world.group.onRebalance();
    world.group.onAssigned([0, 1], 'member-1');
    await world.group.onRebalance();
    world.group.onAssigned([2], 'member-1');
    await vi.waitFor(() => expect(sink.owned().map(({ partition }) => partition)).toEqual([2]));
    await stores();
    stopping.abort();
    expect(states.at(-1)).toBe('DRAINING');
    await ended;
    expect(states.at(-1)).toBe('STOPPED');
  });
});
