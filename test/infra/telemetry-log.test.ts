import { Kafka, type logCreator as KafkajsLogCreator, logLevel } from 'kafkajs';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { kafkajsLogCreator } from '../../infra/telemetry/kafkajs-log.ts';
import { createLogger, type LoggerOptions } from '../../infra/telemetry/log.ts';
import { toText } from '../../infra/telemetry/text-line.ts';
import { PipelineError } from '../../schemas/errors.ts';

const SECRET = 'hunter2"\\x';

function capture(options: Partial<LoggerOptions> = {}) {
  const lines: string[] = [];
  const logger = createLogger({
    level: 'trace',
    name: 'test',
    destination: { write: (line) => lines.push(line) },
    ...options,
  });
  return { logger, lines, parsed: () => lines.map((line) => JSON.parse(line) as Record<string, unknown>) };
}

describe('redaction', () => {
  const hiddenIn = (secret: string, lines: readonly string[]) => {
    const all = lines.join('');
    return !all.includes(secret) && !all.includes(JSON.stringify(secret).slice(1, -1));
  };

  it.each<[string, (logger: ReturnType<typeof createLogger>, secret: string) => void]>([
    ['a field', (logger, password) => logger.info({ password }, 'm')],
    ['a nested field', (logger, password) => logger.info({ kafka: { a: [{ b: { c: { password } } }] } }, 'm')],
    ['sasl as a whole', (logger, username) => logger.info({ kafka: { sasl: { mechanism: 'plain', username } } }, 'm')],
    ['keyPassphrase', (logger, keyPassphrase) => logger.info({ ssl: { keyPassphrase } }, 'm')],
    ['a header in any case', (logger, secret) => logger.info({ headers: { Authorization: `Basic ${secret}` } }, 'm')],
    [
      'bindings of a child',
      (logger, password) =>
        logger
          .child({ a: { b: { password } } })
          .child({ c: 1 })
          .info('m'),
    ],
    ['a cause of an error', (logger, password) => logger.error(Object.assign(new Error('x'), { cause: { password } }))],
    ['a property of an error', (logger, password) => logger.error({ err: Object.assign(new Error('x'), { password }) }, 'm')],
    ['JSON in a message', (logger, password) => logger.info(JSON.stringify({ password }))],
    ['an interpolated object', (logger, password) => logger.info('given %j', { a: { password } })],
  ])('hides %s', (_, log) => {
    const { logger, lines } = capture();
    log(logger, 'hunter2xyz');
    expect(lines).toHaveLength(1);
    expect(lines[0]).toContain('[redacted]');
    expect(hiddenIn('hunter2xyz', lines)).toBe(true);
    expect(() => JSON.parse(lines[0]!)).not.toThrow();
    expect(hiddenIn('hunter2xyz', [toText(lines[0]!)])).toBe(true);
  });

  it('hides a password with a quote and a backslash, of a field and of bindings', () => {
    const { logger, lines, parsed } = capture();
    logger.info({ password: SECRET }, 'm');
    logger.child({ password: SECRET }).info('m');
    expect(hiddenIn(SECRET, lines)).toBe(true);
    expect(parsed().map(({ msg }) => msg)).toEqual(['m', 'm']);
  });

  it('hides credentials in URLs, assignments and private keys in any text', () => {
    const { logger, lines, parsed } = capture();
    logger.info('connecting to https://me:hunter2@registry:8081/subjects');
    logger.info('started with HSTU_KAFKA__SASL__PASSWORD=hunter2 and more');
    logger.info({ key: '-----BEGIN RSA PRIVATE KEY-----\nhunter2\n-----END RSA PRIVATE KEY-----\n', port: 1 }, 'm');
    expect(hiddenIn('hunter2', lines)).toBe(true);
    expect(parsed()[0]!['msg']).toBe('connecting to https://me:[redacted]@registry:8081/subjects');
    expect(parsed()[2]!['port']).toBe(1);
  });

  it('hides the known secrets wherever they stand, and shows them where it was not told (negative control)', () => {
    const told = capture({ secrets: [SECRET, 'abc'] });
    told.logger.info({ note: `they said ${SECRET}` }, `it is ${SECRET}, abc`);
    expect(hiddenIn(SECRET, told.lines)).toBe(true);
    expect(told.parsed()[0]!['msg']).toContain('abc');
    const untold = capture();
    untold.logger.info({ note: SECRET, tokens: 3 }, 'm');
    expect(hiddenIn(SECRET, untold.lines)).toBe(false);
    expect(untold.parsed()[0]).toMatchObject({ note: SECRET, tokens: 3, level: 'info', name: 'test' });
  });
});

describe('errors', () => {
  it('are told with code and the chain of causes', () => {
    const { logger, parsed } = capture();
    const root = Object.assign(new Error('connect ECONNREFUSED'), { code: 'ECONNREFUSED' });
    logger.error(new PipelineError('KAFKA_UNAVAILABLE', 'no broker answers', { cause: new Error('retries', { cause: root }) }));
    logger.error({ err: new PipelineError('STORE_FAILED', 'disk full') }, 'commit failed');
    expect(parsed()[0]).toMatchObject({
      level: 'error',
      msg: 'no broker answers',
      err: { type: 'PipelineError', code: 'KAFKA_UNAVAILABLE', cause: { message: 'retries', cause: { code: 'ECONNREFUSED' } } },
    });
    expect((parsed()[0]!['err'] as { stack: string }).stack).toContain('telemetry-log.test.ts');
    expect(parsed()[1]).toMatchObject({ msg: 'commit failed', err: { code: 'STORE_FAILED' } });
  });

  it('are bounded: bytes by length, lists by their head, cycles by depth', () => {
    const { logger, parsed } = capture();
    const cyclic: Record<string, unknown> = {};
    cyclic['self'] = cyclic;
    logger.info({ bytes: new Uint8Array(1000), list: Array.from({ length: 100 }, (_, i) => i), cyclic }, 'm');
    expect(parsed()[0]).toMatchObject({ bytes: '[1000 bytes]' });
    expect(parsed()[0]!['list']).toHaveLength(33);
    expect(JSON.stringify(parsed()[0])).toContain('[deeper]');
  });

  it('are readable as text', () => {
    const { logger, lines } = capture();
    logger.error(new PipelineError('STORE_FAILED', 'disk full', { cause: new Error('ENOSPC') }), 'commit failed');
    const shown = toText(lines[0]!);
    expect(shown).toMatch(/ERROR.*test.*commit failed/);
    expect(shown).toContain('STORE_FAILED');
    expect(shown).toMatch(/caused by .*ENOSPC/s);
    expect(toText('not json\n')).toBe('not json\n');
  });
});

describe('repeated warnings', () => {
  beforeEach(() => void vi.useFakeTimers());
  afterEach(() => void vi.useRealTimers());

  it('are said once, then counted every interval, then anew after a quiet one', () => {
    const { logger, parsed } = capture({ repeatEveryMs: 1000 });
    for (let i = 0; i < 50; i++) logger.warn({ broker: i }, 'broker away');
    expect(parsed()).toHaveLength(1);
    vi.advanceTimersByTime(1000);
    expect(parsed()).toHaveLength(2);
    expect(parsed()[1]).toMatchObject({ level: 'warn', msg: 'broker away', repeated: 49, broker: 49 });
    vi.advanceTimersByTime(5000);
    expect(parsed()).toHaveLength(2);
    logger.warn('broker away');
    expect(parsed()).toHaveLength(3);
    expect(parsed()[2]).not.toHaveProperty('repeated');
  });

  it('leave other texts, other parts, other levels and errors alone', () => {
    const { logger, parsed } = capture();
    logger.warn('a');
    logger.warn('b');
    logger.child({ part: 'x' }).warn('a');
    for (let i = 0; i < 3; i++) logger.error('a');
    expect(parsed()).toHaveLength(6);
  });

  it('hold a bounded number of texts', () => {
    const { logger, parsed } = capture();
    for (let i = 0; i < 1000; i++) logger.warn(`text ${i}`);
    logger.warn('text 999');
    expect(parsed()).toHaveLength(1000);
    expect(vi.getTimerCount()).toBe(256);
  });
});

describe('kafkajs', () => {
  it('speaks through the log: routine is quiet, no payload, levels kept', () => {
    const { logger, parsed, lines } = capture();
    const create: KafkajsLogCreator = kafkajsLogCreator(logger);
    const log = create(logLevel.DEBUG);
    const entry = (level: logLevel, message: string, extra: object, namespace = 'ConsumerGroup') =>
      log({ namespace, level, label: '', log: { timestamp: '', logger: 'kafkajs', message, ...extra } });
    entry(logLevel.INFO, 'Consumer has joined the group', { memberId: 'm' });
    entry(logLevel.WARN, 'The group is rebalancing, re-joining', { groupId: 'g' });
    entry(logLevel.ERROR, 'Response Heartbeat', { error: 'The group is rebalancing, so a rejoin is needed' });
    entry(logLevel.ERROR, 'Connection timeout', { broker: 'b:9092' });
    entry(logLevel.WARN, 'slow', { sasl: { password: 'hunter2' } });
    const handshake = { payload: Buffer.from('hunter2'), authBytes: 'hunter2', size: 3 };
    entry(logLevel.DEBUG, 'Request SaslAuthenticate', handshake, 'Connection');
    entry(logLevel.ERROR, 'Failed to send messages: NOT_LEADER', { retryCount: 0 }, 'Producer');
    expect(parsed().map(({ level, msg }) => `${String(level)} ${String(msg)}`)).toEqual([
      'debug Consumer has joined the group',
      'info The group is rebalancing, re-joining',
      'info Response Heartbeat',
      'error Connection timeout',
      'warn slow',
      'debug Request SaslAuthenticate',
      // It tries again; what it gives up on is thrown.
      'debug Failed to send messages: NOT_LEADER',
    ]);
    expect(parsed()[5]).toMatchObject({ part: 'kafkajs', namespace: 'Connection', size: 3 });
    expect(lines.join('')).not.toContain('hunter2');
  });

  it('never logs the password it was given', async () => {
    const { logger, lines } = capture();
    const kafka = new Kafka({
      brokers: ['127.0.0.1:1'],
      sasl: { mechanism: 'plain', username: 'u', password: 'hunter2xyz' },
      retry: { retries: 0 },
      logCreator: kafkajsLogCreator(logger),
      logLevel: logLevel.DEBUG,
    });
    await expect(kafka.admin().connect()).rejects.toThrow();
    expect(lines.length).toBeGreaterThan(0);
    expect(lines.join('')).not.toContain('hunter2xyz');
  });
});
