/** Where logins come from: token endpoints, programs, AWS; each fault told without the secret. */
import { createHash, createHmac } from 'node:crypto';
import { createServer, type IncomingMessage, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { parseToken } from '../../../infra/kafka/sasl/bearer-token.ts';
import { requestToken } from '../../../infra/kafka/sasl/client-credentials.ts';
import { keepToken } from '../../../infra/kafka/sasl/kept-token.ts';
import { signMskToken } from '../../../infra/kafka/sasl/msk-token.ts';
import { loginInClearText, saslOptions } from '../../../infra/kafka/sasl/sasl-options.ts';
import { runTokenCommand } from '../../../infra/kafka/sasl/token-command.ts';
import { type KafkaConfig, parseConfig } from '../../../schemas/config.ts';

const SECRET = 'hunter2 & more';
const jwt = (claims: object) => `e30.${Buffer.from(JSON.stringify(claims)).toString('base64url')}.`;

const kafkaOf = (kafka: object): KafkaConfig =>
  parseConfig({ bundle: 'b', kafka: { brokers: ['broker:9092'], ...kafka } }, 'this test').kafka!;

describe('a token', () => {
  it.each([
    ['plain', 'abc.def-_~+/=\n', 'abc.def-_~+/=', undefined],
    ['JSON', '{"access_token":"abc","expires_in":60}', 'abc', 61_000],
    ['JSON with the number as text', '{"access_token":"abc","expires_in":"60"}', 'abc', 61_000],
    ['a JSON Web Token, which says itself', jwt({ exp: 77 }), jwt({ exp: 77 }), 77_000],
    ['one with an exp that is none', jwt({ exp: 'x' }), jwt({ exp: 'x' }), undefined],
  ])('is read: %s', (_, text, value, expiresAtMs) => {
    expect(parseToken(text, 'it', 1_000)).toEqual({ value, expiresAtMs });
  });

  it.each([['', '{}', '{"access_token":1}', '{x', 'two words', 'with\u0001control', '{"access_token":"a\\u0001auth=b"}', '[]']])(
    'is refused where there is none, and not told: %j',
    (text) => {
      expect(() => parseToken(text, 'it', 0)).toThrow(/^it gave no token: expected a token/);
    },
  );

  it('is kept for four fifths of its life, asked for once by many, and given while it is good though the next fails', async () => {
    let nowMs = 0;
    let asked = 0;
    let fails = false;
    const token = keepToken(
      async () => {
        asked++;
        if (fails) throw new Error('away');
        return { value: `t${asked}`, expiresAtMs: nowMs + 1_000_000 };
      },
      () => nowMs,
    );
    expect(await Promise.all([token(), token(), token()])).toEqual(['t1', 't1', 't1']);
    nowMs = 799_999;
    expect(await token()).toBe('t1');
    nowMs = 800_000;
    fails = true;
    expect(await token()).toBe('t1');
    nowMs = 995_001;
    await expect(token()).rejects.toThrow('away');
    fails = false;
    expect(await token()).toBe('t4');
    expect(asked).toBe(4);
  });

  it('that lives for less than the brokers are told of is asked for at every login', async () => {
    let asked = 0;
    const token = keepToken(
      async () => ({ value: `t${++asked}`, expiresAtMs: 29_000 }),
      () => 0,
    );
    expect([await token(), await token()]).toEqual(['t1', 't2']);
  });

  it('of unknown life is used once', async () => {
    let asked = 0;
    const token = keepToken(async () => ({ value: `t${++asked}`, expiresAtMs: undefined }));
    expect([await token(), await token()]).toEqual(['t1', 't2']);
  });
});

describe('client credentials', () => {
  let server: Server;
  let answer: (request: IncomingMessage, body: string) => { status?: number; headers?: Record<string, string>; body: string };
  let url: string;
  const seen: { authorization: string | undefined; body: string }[] = [];
  beforeEach(async () => {
    seen.length = 0;
    server = createServer(async (request, response) => {
      let body = '';
      for await (const chunk of request) body += String(chunk);
      seen.push({ authorization: request.headers.authorization, body });
      const { status = 200, headers = {}, body: text } = answer(request, body);
      response.writeHead(status, headers).end(text);
    });
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/token`;
  });
  afterEach(() => {
    server.closeAllConnections();
    server.close();
  });
  const ask = (more: object = {}, timeoutMs = 2_000) =>
    requestToken({ tokenUrl: url, clientId: 'me:and', clientSecret: SECRET, ...more }, timeoutMs, () => 5_000);

  it('are posted as RFC 6749 says', async () => {
    answer = () => ({ body: '{"access_token":"abc","expires_in":60,"token_type":"Bearer"}' });
    expect(await ask({ scope: 'kafka write', audience: 'a&b' })).toEqual({ value: 'abc', expiresAtMs: 65_000 });
    const { authorization, body } = seen[0]!;
    expect(Buffer.from(authorization!.replace('Basic ', ''), 'base64').toString()).toBe('me%3Aand:hunter2+%26+more');
    expect(body).toBe('grant_type=client_credentials&scope=kafka+write&audience=a%26b');
  });

  it.each([
    [401, '{"error":"invalid_client"}', 'KAFKA_AUTHENTICATION', /answered 401: invalid_client \(check kafka\.sasl/],
    [400, `{"error":"${SECRET}"}`, 'KAFKA_AUTHENTICATION', /answered 400 \(check/],
    [503, 'busy', 'KAFKA_UNAVAILABLE', /answered 503$/],
    [200, `<html>${SECRET}`, 'KAFKA_AUTHENTICATION', /gave no token/],
    [200, 'x'.repeat(70_000), 'KAFKA_UNAVAILABLE', /longer than 65536 bytes/],
    [302, '', 'KAFKA_UNAVAILABLE', /redirect/],
  ])('refused with %i are told, the secret is not', async (status, body, code, message) => {
    answer = () => ({ status, headers: status === 302 ? { location: url } : {}, body });
    const error = await ask().catch((thrown: unknown) => thrown);
    expect(error).toMatchObject({ code, message: expect.stringMatching(message) });
    expect(JSON.stringify(error, Object.getOwnPropertyNames(error))).not.toMatch(/hunter2/);
    expect(seen).toHaveLength(1);
  });

  it('do not wait for ever', async () => {
    answer = () => ({ body: '' });
    server.removeAllListeners('request');
    await expect(ask({}, 200)).rejects.toMatchObject({ code: 'KAFKA_UNAVAILABLE', message: /did not answer within 200 ms/ });
  });

  it('are asked for once by all clients of a process', async () => {
    answer = () => ({ body: '{"access_token":"abc","expires_in":600}' });
    const clientCredentials = { tokenUrl: url, clientId: 'me', clientSecret: SECRET };
    const { sasl } = kafkaOf({ sasl: { mechanism: 'oauthbearer', clientCredentials, extensions: { logicalCluster: 'x' } } });
    for (const options of [saslOptions(sasl!), saslOptions(sasl!)]) {
      if (!('oauthBearerProvider' in options)) throw new Error('another mechanism');
      expect(await options.oauthBearerProvider()).toEqual({ value: 'abc', extensions: { logicalCluster: 'x' } });
    }
    expect(seen).toHaveLength(1);
  });
});

describe('a token command', () => {
  const node = (script: string) => runTokenCommand([process.execPath, '-e', script], 5_000, () => 0);
  it('is run without a shell, and its output read', async () => {
    expect(await node('console.log(JSON.stringify({ access_token: "abc", expires_in: 9 }))')).toEqual({
      value: 'abc',
      expiresAtMs: 9_000,
    });
    expect((await runTokenCommand(['/bin/echo', '$HOME'], 5_000).catch((error: Error) => error)) as Error).toMatchObject({
      message: expect.stringContaining('gave no token'),
    });
  });
  it.each([
    ['console.log("abc"); process.exit(3)', 'KAFKA_UNAVAILABLE', /ended with 3$/],
    ['process.stdout.write("x".repeat(70000))', 'KAFKA_AUTHENTICATION', /printed more than 65536 bytes/],
    ['console.log("no token here")', 'KAFKA_AUTHENTICATION', /gave no token/],
  ])('that runs %j is told', async (script, code, message) => {
    await expect(node(script)).rejects.toMatchObject({ code, message: expect.stringMatching(message) });
  });
  it('that hangs, or is not there, is told', async () => {
    await expect(runTokenCommand(['/bin/sleep', '30'], 200)).rejects.toMatchObject({
      code: 'KAFKA_UNAVAILABLE',
      message: /did not end within 200 ms/,
    });
    await expect(runTokenCommand(['/nowhere/token'], 200)).rejects.toMatchObject({
      code: 'KAFKA_AUTHENTICATION',
      message: /cannot be run: ENOENT/,
    });
  });
});

describe('a token for Amazon MSK', () => {
  afterEach(() => vi.unstubAllEnvs());
  it('is a request signed by Signature Version 4, whoever checks it', async () => {
    const key = 'wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY';
    vi.stubEnv('AWS_ACCESS_KEY_ID', 'AKIDEXAMPLE');
    vi.stubEnv('AWS_SECRET_ACCESS_KEY', key);
    vi.stubEnv('AWS_SESSION_TOKEN', undefined);
    const { value, expiresAtMs } = await signMskToken({ mechanism: 'aws-msk-iam', region: 'eu-central-1' });
    const url = new URL(Buffer.from(value, 'base64url').toString());
    expect(url.origin).toBe('https://kafka.eu-central-1.amazonaws.com');
    const query = url.searchParams;
    expect([query.get('Action'), query.get('X-Amz-Expires')]).toEqual(['kafka-cluster:Connect', '900']);
    expect(expiresAtMs! - Date.now()).toBeGreaterThan(600_000);
    // As AWS documents it: "Create a signed AWS API request".
    const at = query.get('X-Amz-Date')!;
    const scope = `${at.slice(0, 8)}/eu-central-1/kafka-cluster/aws4_request`;
    expect(query.get('X-Amz-Credential')).toBe(`AKIDEXAMPLE/${scope}`);
    const signed = [...query]
      .filter(([name]) => !['X-Amz-Signature', 'User-Agent'].includes(name))
      .map(([name, one]) => `${encodeURIComponent(name)}=${encodeURIComponent(one)}`)
      .sort();
    const digest = (text: string) => createHash('sha256').update(text).digest('hex');
    const canonical = ['GET', '/', signed.join('&'), `host:${url.host}`, '', 'host', digest('')].join('\n');
    const text = ['AWS4-HMAC-SHA256', at, scope, digest(canonical)].join('\n');
    const hmac = (by: Buffer | string, part: string) => createHmac('sha256', by).update(part).digest();
    const signing = scope.split('/').reduce<Buffer | string>((by, part) => hmac(by, part), `AWS4${key}`);
    expect(query.get('X-Amz-Signature')).toBe(hmac(signing, text).toString('hex'));
  });
});

describe('the configuration of a login', () => {
  it.each([
    [{ mechanism: 'oauthbearer' }, /needs either clientCredentials or command/],
    [{ mechanism: 'oauth' }, /expected plain, scram-sha-256, scram-sha-512, oauthbearer or aws-msk-iam/],
    [{ mechanism: 'aws-msk-iam', region: 'Frankfurt' }, /a region of AWS/],
    [{ mechanism: 'aws-msk-iam', region: 'eu-central-1' }, /kafka\.ssl: aws-msk-iam needs TLS/],
    [{ mechanism: 'oauthbearer', command: ['x'], extensions: { auth: 'x' } }, /kafka\.sasl\.extensions/],
    [
      { mechanism: 'oauthbearer', clientCredentials: { tokenUrl: 'http://idp.example/x', clientId: 'a', clientSecret: 'b' } },
      /must be https/,
    ],
    [
      {
        mechanism: 'oauthbearer',
        clientCredentials: { tokenUrl: 'https://a:b@idp.example/x', clientId: 'a', clientSecret: 'b' },
      },
      /must name no user/,
    ],
  ])('%j is refused', (sasl, message) => {
    expect(() => kafkaOf({ sasl })).toThrow(message);
  });

  it.each([
    ['plain', ['far:9092', '127.0.0.1:1'], false, /password .* sent in clear text to far:9092, where/],
    ['oauthbearer', ['far:9092'], false, /token .* sent in clear text/],
    ['plain', ['localhost:9092', '127.0.0.1:1'], false, undefined],
    ['plain', ['127.0.0.1.example.com:1'], false, /127\.0\.0\.1\.example\.com/],
    ['plain', ['far:9092'], true, undefined],
    ['scram-sha-512', ['far:9092'], false, undefined],
  ])('%s to %j with TLS %s', (mechanism, brokers, ssl, message) => {
    const login = mechanism === 'oauthbearer' ? { command: ['token'] } : { username: 'u', password: SECRET };
    const told = loginInClearText(kafkaOf({ brokers, ssl, sasl: { mechanism, ...login } }));
    if (message === undefined) expect(told).toBeUndefined();
    else expect(told).toMatch(message);
    expect(told ?? '').not.toContain('hunter2');
  });
});
