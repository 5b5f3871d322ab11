/** What the sink says of itself over HTTP: the same truth as the stream, and ClickHouse besides. */
import { afterEach, describe, expect, it } from 'vitest';
import { createLogger } from '../../infra/telemetry/log.ts';
import { parseConfig } from '../../schemas/config.ts';
import { PipelineError } from '../../schemas/errors.ts';
import { requireKafka } from '../../streams/require-kafka.ts';
import { SinkTelemetry } from '../../streams/sink/observe-sink.ts';

let told: SinkTelemetry;
afterEach(() => told.close());

describe('the sink', () => {
  it('is not ready while it waits for brokers, for ClickHouse, or for a topic that is gone, and says which', async () => {
    const config = requireKafka(
      parseConfig({ bundle: 'none', kafka: { brokers: ['localhost:1'] }, sink: { port: 0 } }, 'this test'),
      'this test',
    );
    told = new SinkTelemetry(config, createLogger({ level: 'silent', name: 'test' }));
    const port = await told.listen();
    const ready = async () => {
      const response = await fetch(`http://127.0.0.1:${port}/readyz`);
      const { state, reasons = [] } = (await response.json()) as { state: string; reasons?: { code: string }[] };
      return [response.status, state, ...reasons.map(({ code }) => code)];
    };
    const { observer } = told;
    observer.onWaiting?.(new PipelineError('KAFKA_UNAVAILABLE', 'no broker answers'), 100);
    expect(await ready()).toEqual([503, 'STARTING', 'KAFKA_UNAVAILABLE']);
    observer.onState?.('RUNNING');
    expect(await ready()).toEqual([200, 'RUNNING']);
    observer.onAway?.(new Error('refused'), 1);
    expect(await ready()).toEqual([503, 'RETRYING']);
    observer.onBack?.(1);
    observer.onWatched?.([{ code: 'TOPICS_INVALID', message: 'the topic t is not there', sinceMs: Date.now(), topic: 't' }]);
    expect(await ready()).toEqual([503, 'RUNNING', 'TOPICS_INVALID']);
    observer.onWatched?.([]);
    observer.onRecovering?.(new PipelineError('KAFKA_FAILED', 'no answer'), 100);
    expect(await ready()).toEqual([503, 'RUNNING', 'KAFKA_FAILED']);
    observer.onCommitted?.([], { rows: 0, unreadable: 0, erasures: 0, seconds: 0 } as never);
    expect(await ready()).toEqual([200, 'RUNNING']);
    expect((await fetch(`http://127.0.0.1:${port}/healthz`)).status).toBe(200);
    observer.onState?.('FAILED');
    observer.onFailed?.(new PipelineError('TOPICS_INVALID', 'made again'));
    expect((await fetch(`http://127.0.0.1:${port}/healthz`)).status).toBe(503);
  });
});
