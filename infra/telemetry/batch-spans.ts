/**
 * Traces: a span a batch, and in it one a step. Only the OpenTelemetry API is used: without an SDK registered by whoever runs the
 * process no span is recorded, and the cost is one call a batch.
 */
import { type Context, ROOT_CONTEXT, type Span, SpanKind, SpanStatusCode, type Tracer, trace } from '@opentelemetry/api';
import type { SourceBatch } from '../../schemas/batch.ts';
import { messageOf, PipelineError } from '../../schemas/errors.ts';

/** First and last of the steps that every batch passes: they open and end its span. */
const FIRST_STEP = 'decode';
const LAST_STEP = 'commit';
/** Batches of a pipeline that was torn down never end; beyond this many open spans the oldest is ended. */
const MAX_OPEN = 1024;

interface OpenBatch {
  readonly span: Span;
  readonly context: Context;
}

/** An observer of the pipeline. Spans are written when a step is over, with the time at which it began. */
export class BatchSpans {
  readonly #tracer: Tracer;
  readonly #nowMs: () => number;
  readonly #open = new Map<SourceBatch, OpenBatch>();

  /** @param nowMs clock, ms since the epoch */
  constructor(
    tracer: Tracer = trace.getTracer('hstu-streams'),
    nowMs: () => number = () => performance.timeOrigin + performance.now(),
  ) {
    this.#tracer = tracer;
    this.#nowMs = nowMs;
  }

  step(id: string, seconds: number, events: number, batches: readonly SourceBatch[]): void {
    const endMs = this.#nowMs();
    const startTime = endMs - 1000 * seconds;
    for (const batch of batches) {
      if (id === FIRST_STEP) this.#begin(batch, startTime);
      const open = this.#open.get(batch);
      if (open === undefined) continue;
      this.#tracer.startSpan(id, { startTime, attributes: { 'hstu.events': events } }, open.context).end(endMs);
      if (id === LAST_STEP) this.#end(batch, open, endMs);
    }
  }

  /** Which batch was at fault is not known: all that are open end here. */
  failed(step: string, error: unknown): void {
    for (const [batch, open] of this.#open) {
      open.span.setAttribute('hstu.failed_step', step);
      if (error instanceof PipelineError) open.span.setAttribute('error.type', error.code);
      open.span.setStatus({ code: SpanStatusCode.ERROR, message: messageOf(error) });
      this.#end(batch, open, this.#nowMs());
    }
  }

  #begin(batch: SourceBatch, startTime: number): void {
    const { topic, partition, records, nextOffset } = batch;
    const attributes = {
      'messaging.destination.name': topic,
      'messaging.destination.partition.id': String(partition),
      'messaging.batch.message_count': records.length,
      'hstu.offset.first': records[0]?.position.offset ?? nextOffset,
      'hstu.offset.next': nextOffset,
    };
    const span = this.#tracer.startSpan(`process ${topic}`, { kind: SpanKind.CONSUMER, startTime, attributes }, ROOT_CONTEXT);
    if (!span.isRecording()) return;
    if (this.#open.size >= MAX_OPEN) {
      const [oldest, open] = this.#open.entries().next().value!;
      this.#end(oldest, open, startTime);
    }
    this.#open.set(batch, { span, context: trace.setSpan(ROOT_CONTEXT, span) });
  }

  #end(batch: SourceBatch, { span }: OpenBatch, endMs: number): void {
    span.end(endMs);
    this.#open.delete(batch);
  }
}
