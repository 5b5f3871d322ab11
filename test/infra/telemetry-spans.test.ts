import { type Context, type Span, type SpanOptions, type Tracer, trace } from '@opentelemetry/api';
import { describe, expect, it } from 'vitest';
import { BatchSpans } from '../../infra/telemetry/batch-spans.ts';
import { PipelineError } from '../../schemas/errors.ts';
import { sourceBatch } from '../operators/fixtures.ts';

interface Recorded {
  readonly name: string;
  readonly parent: string | undefined;
  readonly start: unknown;
  readonly attributes: Record<string, unknown>;
  end?: unknown;
  status?: unknown;
}

function fakeTracer(recording = true) {
  const spans: Recorded[] = [];
  const startSpan = (name: string, { startTime, attributes }: SpanOptions = {}, context?: Context): Span => {
    const parent = context && (trace.getSpan(context) as unknown as { recorded: Recorded } | undefined)?.recorded.name;
    const recorded: Recorded = { name, parent, start: startTime, attributes: { ...attributes } };
    spans.push(recorded);
    return {
      recorded,
      isRecording: () => recording,
      end: (at: unknown) => {
        recorded.end = at;
      },
      setStatus: (status: unknown) => {
        recorded.status = status;
      },
      setAttribute: (key: string, value: unknown) => {
        recorded.attributes[key] = value;
      },
    } as unknown as Span;
  };
  return { spans, tracer: { startSpan } as unknown as Tracer };
}

describe('batch spans', () => {
  const [a, b] = [sourceBatch(5, ['x', 'y']), sourceBatch(7, ['z'], 1)];

  it('are one a batch, with one a step in it, from when it began to when it was over', () => {
    const { spans, tracer } = fakeTracer();
    let now = 1000;
    const observer = new BatchSpans(tracer, () => now);
    observer.step('decode', 0.002, 2, [a]);
    observer.step('decode', 0.001, 1, [b]);
    now = 1010;
    observer.step('encode', 0.005, 3, [a, b]);
    now = 1020;
    observer.step('commit', 0.001, 2, [a]);
    expect(spans.map(({ name, parent, start, end }) => [name, parent, start, end])).toEqual([
      ['process actions', undefined, 998, 1020],
      ['decode', 'process actions', 998, 1000],
      ['process actions', undefined, 999, undefined],
      ['decode', 'process actions', 999, 1000],
      ['encode', 'process actions', 1005, 1010],
      ['encode', 'process actions', 1005, 1010],
      ['commit', 'process actions', 1019, 1020],
    ]);
    expect(spans[0]!.attributes).toEqual({
      'messaging.destination.name': 'actions',
      'messaging.destination.partition.id': '0',
      'messaging.batch.message_count': 2,
      'hstu.offset.first': 5,
      'hstu.offset.next': 7,
    });
    observer.step('encode', 1, 1, [a]);
    expect(spans).toHaveLength(7);
  });

  it('end with the error of the step that failed', () => {
    const { spans, tracer } = fakeTracer();
    const observer = new BatchSpans(tracer, () => 1000);
    observer.step('decode', 0, 2, [a]);
    observer.failed('publish', new PipelineError('STORE_FAILED', 'disk full'));
    expect(spans[0]).toMatchObject({ end: 1000, status: { message: 'disk full' } });
    expect(spans[0]!.attributes).toMatchObject({ 'hstu.failed_step': 'publish', 'error.type': 'STORE_FAILED' });
  });

  it('are none without an SDK, at one call a batch', () => {
    const { spans, tracer } = fakeTracer(false);
    const observer = new BatchSpans(tracer, () => 0);
    for (const id of ['decode', 'encode', 'commit']) observer.step(id, 0, 2, [a]);
    expect(spans).toHaveLength(1);
    new BatchSpans().step('decode', 0, 2, [a]);
  });

  it('stay bounded when batches never end', () => {
    const { spans, tracer } = fakeTracer();
    const observer = new BatchSpans(tracer, () => 0);
    for (let i = 0; i < 1100; i++) observer.step('decode', 0, 0, [sourceBatch(i, [])]);
    const roots = spans.filter(({ name }) => name !== 'decode');
    expect(roots.filter(({ end }) => end === undefined)).toHaveLength(1024);
    expect(roots[75]!.end).toBeDefined();
  });
});
