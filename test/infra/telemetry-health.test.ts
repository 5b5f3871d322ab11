import { mkdir, mkdtemp, rm, stat, symlink } from 'node:fs/promises';
import { Agent, get, request } from 'node:http';
import { type AddressInfo, connect, createServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, describe, expect, it } from 'vitest';
import {
  type Health,
  type HealthServer,
  type HealthServerOptions,
  startHealthServer,
} from '../../infra/telemetry/health-server.ts';
import { openToken } from '../../infra/telemetry/model-door.ts';
import { answerModel } from '../../infra/telemetry/model-endpoint.ts';
import { PipelineError } from '../../schemas/errors.ts';

const open: HealthServer[] = [];
afterEach(async () => {
  for (const server of open.splice(0)) await server.close();
});

async function start(options: Partial<HealthServerOptions> = {}) {
  const server = await startHealthServer({
    host: '127.0.0.1',
    port: 0,
    health: () => ({ state: 'RUNNING', sinceMs: 0 }),
    metrics: { contentType: 'text/plain; version=0.0.4; charset=utf-8', text: async () => 'hstu_up 1\n' },
    ...options,
  });
  open.push(server);
  return { server, ask: (path: string, init: RequestInit = {}) => fetch(`http://127.0.0.1:${server.port}${path}`, init) };
}

describe('the health server', () => {
  it.each([
    ['STARTING', 200, 503],
    ['RESTORING', 200, 503],
    ['RUNNING', 200, 200],
    ['DRAINING', 200, 503],
    ['STOPPED', 200, 503],
    ['FAILED', 503, 503],
  ])('of a stream that is %s answers %i and %i', async (state, alive, ready) => {
    const health: Health = { state, sinceMs: Date.UTC(2026, 0, 1), ...(state === 'FAILED' && { reason: 'disk full' }) };
    const { ask } = await start({ health: () => health });
    const [healthz, readyz] = await Promise.all([ask('/healthz'), ask('/readyz')]);
    expect([healthz.status, readyz.status]).toEqual([alive, ready]);
    expect(healthz.headers.get('content-type')).toContain('application/json');
    const body = { state, since: '2026-01-01T00:00:00.000Z', ...(state === 'FAILED' && { reason: 'disk full' }) };
    expect(await healthz.json()).toEqual(body);
    expect(await readyz.json()).toEqual(body);
  });

  it('runs, lives, and is not ready while something stands in its way, which it names', async () => {
    const sinceMs = Date.UTC(2026, 0, 2);
    const stands = {
      code: 'KAFKA_FAILED',
      message: 't/3 stands at offset 7: no answer',
      topic: 't',
      partition: 3,
      offset: 7,
      sinceMs,
    };
    let health: Health = { state: 'RUNNING', sinceMs: Date.UTC(2026, 0, 1), unready: [stands] };
    const { ask } = await start({ health: () => health });
    expect((await ask('/healthz')).status).toBe(200);
    const readyz = await ask('/readyz');
    expect(readyz.status).toBe(503);
    const { sinceMs: _, ...facts } = stands;
    expect(await readyz.json()).toEqual({
      state: 'RUNNING',
      since: '2026-01-01T00:00:00.000Z',
      reason: stands.message,
      reasons: [{ ...facts, since: '2026-01-02T00:00:00.000Z' }],
    });
    health = { ...health, unready: [] };
    expect((await ask('/readyz')).status).toBe(200);
  });

  it('is unhealthy while a batch is stuck, and healthy when none is or it is young', async () => {
    let oldest: number | undefined = 1_000;
    const { ask } = await start({ progress: () => oldest, stallLimitMs: 500, now: () => 1_501 });
    const stuck = await ask('/healthz');
    expect(stuck.status).toBe(503);
    expect(await stuck.json()).toMatchObject({ state: 'RUNNING', reason: 'a batch is in flight for 501 ms; allowed: 500 ms' });
    expect((await ask('/readyz')).status).toBe(200);
    oldest = 1_001;
    expect((await ask('/healthz')).status).toBe(200);
    oldest = undefined;
    expect((await ask('/healthz')).status).toBe(200);
  });

  it('serves metrics, with the content type of the format; a failure is a 500', async () => {
    const { ask } = await start();
    const response = await ask('/metrics?x=1');
    expect(response.headers.get('content-type')).toBe('text/plain; version=0.0.4; charset=utf-8');
    expect(await response.text()).toBe('hstu_up 1\n');
    const failing = await start({ metrics: { contentType: 'x', text: () => Promise.reject(new Error('no')) } });
    expect((await failing.ask('/metrics')).status).toBe(500);
  });

  it('takes a change of the model from this machine, as JSON, and says what became of it', async () => {
    const asked: (string | undefined)[] = [];
    const control = {
      status: { serving: { digest: 'a' } },
      change: async (path?: string) => {
        asked.push(path);
        if (path?.endsWith('bad')) throw new PipelineError('STATE_INCOMPATIBLE', 'entities: 1 removed');
        return { change: { digest: 'b' } };
      },
    };
    let open: typeof control | undefined;
    const folder = await mkdtemp(join(tmpdir(), 'hstu-door-'));
    for (const name of ['in/good', 'in/bad', 'out']) await mkdir(join(folder, name), { recursive: true });
    await symlink(join(folder, 'out'), join(folder, 'in/link'));
    const file = join(folder, 'state/model.token');
    const modelDoor = { token: await openToken(file), allowedFolder: join(folder, 'in') };
    expect([(await stat(file)).mode & 0o777, await openToken(file)]).toEqual([0o600, modelDoor.token]);
    const { ask } = await start({ model: () => open, modelDoor });
    expect((await ask('/model')).status).toBe(503);
    open = control;
    expect(await (await ask('/model')).json()).toEqual(control.status);
    const json = { 'content-type': 'application/json' };
    const authorized = { ...json, authorization: `Bearer ${modelDoor.token}` };
    const post = (body: string, headers: Record<string, string> = authorized) => ask('/model', { method: 'POST', headers, body });
    const [good, bad] = [join(folder, 'in/good'), join(folder, 'in/bad')];
    for (const authorization of ['', 'Bearer ', 'Bearer x', `Basic ${modelDoor.token}`, `Bearer ${modelDoor.token}x`])
      for (const bundle of [good, bad, '/none', '/etc/passwd'])
        expect((await post(JSON.stringify({ bundle }), { ...json, authorization })).status).toBe(401);
    for (const path of ['out', 'in/link', 'in/../out', 'in/none', 'state/model.token'])
      expect([path, (await post(JSON.stringify({ bundle: join(folder, path) }))).status]).toEqual([path, 403]);
    const begun = await post(JSON.stringify({ bundle: good }));
    expect([begun.status, await begun.json()]).toEqual([202, { change: { digest: 'b' } }]);
    expect((await post('{}')).status).toBe(202);
    const refused = await post(JSON.stringify({ bundle: bad }));
    expect(refused.status).toBe(409);
    expect(await refused.json()).toEqual({ problem: 'entities: 1 removed', code: 'STATE_INCOMPATIBLE', status: control.status });
    // What a page in a browser can send without being let.
    expect((await post('{}', { 'content-type': 'text/plain' })).status).toBe(415);
    for (const body of [
      '',
      'x',
      '[]',
      'null',
      '{"bundle":1}',
      '{"bundle":""}',
      '{"path":"/x"}',
      `{"bundle":"${'x'.repeat(70_000)}"}`,
    ])
      expect([body.slice(0, 20), (await post(body)).status]).toEqual([body.slice(0, 20), 400]);
    expect(asked).toEqual([good, undefined, bad]);
    const from = (remoteAddress: string) =>
      answerModel(
        { method: 'POST', headers: { host: '127.0.0.1:1' }, socket: { remoteAddress, localAddress: '10.0.0.5' } } as never,
        control,
        modelDoor,
      );
    expect([(await from('10.0.0.9')).status, (await from('10.0.0.5')).status, (await from('::1')).status]).toEqual([
      403, 415, 415,
    ]);
    const { ask: off } = await start({ model: () => open });
    expect((await off('/model', { method: 'POST', headers: authorized, body: '{}' })).status).toBe(403);
    await rm(folder, { recursive: true });
    const { ask: without } = await start();
    expect([(await without('/model')).status, (await without('/model', { method: 'POST' })).status]).toEqual([404, 405]);
  });

  it('tells and changes the model for nobody who comes by a foreign name or from a page; probes and Prometheus use any', async () => {
    let changes = 0;
    const model = () => ({ status: {}, change: async () => ({ changes: ++changes }) });
    const { server } = await start({ model, modelDoor: { token: 'x'.repeat(16), allowedFolder: '/' } });
    const { port } = server;
    const status = (path: string, method: string, headers: Record<string, string>) =>
      new Promise<number | undefined>((resolve, reject) => {
        const asked = request({
          port,
          host: '127.0.0.1',
          path,
          method,
          headers: { 'content-type': 'application/json', authorization: `Bearer ${'x'.repeat(16)}`, ...headers },
        });
        asked.on('response', (response) => resolve(response.resume().statusCode)).on('error', reject);
        asked.end(method === 'POST' ? '{}' : undefined);
      });
    for (const host of [
      'attacker.example',
      `attacker.example:${port}`,
      '127.0.0.1.attacker.example',
      'localhost.attacker.example',
      '10.0.0.1',
    ]) {
      expect([host, await status('/model', 'POST', { host }), await status('/model', 'GET', { host })]).toEqual([host, 403, 403]);
      expect([host, await status('/readyz', 'GET', { host }), await status('/metrics', 'GET', { host })]).toEqual([
        host,
        200,
        200,
      ]);
    }
    for (const origin of ['http://attacker.example', `http://127.0.0.1:${port}`, 'null'])
      expect([origin, await status('/model', 'POST', { origin })]).toEqual([origin, 403]);
    expect(changes).toBe(0);
    for (const host of [`127.0.0.1:${port}`, 'localhost', `[::1]:${port}`, '127.0.0.6'])
      expect([host, await status('/model', 'POST', { host })]).toEqual([host, 202]);
  });

  it('answers the probes while others hold connections with half a request', async () => {
    const { server, ask } = await start({ model: () => ({ status: {}, change: async () => ({}) }), maxConnections: 8 });
    const head = 'POST /model HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{';
    const halves = ['', 'GET /healthz HT', head, head].flatMap((text) => Array(8).fill(text) as string[]);
    const sockets = await Promise.all(
      halves.map(
        (text) =>
          new Promise<Socket>((resolve) => {
            const socket = connect(server.port, '127.0.0.1', () => {
              socket.resume().write(text);
              resolve(socket);
            });
            socket.on('error', () => {});
          }),
      ),
    );
    try {
      for (let probe = 0; probe < 5; probe++) {
        expect((await ask('/healthz', { headers: { connection: 'close' } })).status).toBe(200);
      }
      await expect.poll(() => sockets.filter(({ destroyed }) => !destroyed).length).toBeLessThanOrEqual(8);
    } finally {
      for (const socket of sockets) socket.destroy();
    }
  });

  it('answers HEAD without a body, other paths with 404, other methods with 405', async () => {
    const { ask } = await start();
    const head = await ask('/metrics', { method: 'HEAD' });
    expect(head.status).toBe(200);
    expect(head.headers.get('content-length')).toBe('10');
    expect(await head.text()).toBe('');
    expect((await ask('/')).status).toBe(404);
    expect((await ask('/healthz/x')).status).toBe(404);
    const post = await ask('/healthz', { method: 'POST', body: 'x' });
    expect([post.status, post.headers.get('allow')]).toEqual([405, 'GET, HEAD']);
  });

  it('says which port is taken and how to take another', async () => {
    const taken = createServer();
    await new Promise<void>((resolve) => taken.listen(0, '127.0.0.1', resolve));
    const { port } = taken.address() as AddressInfo;
    await expect(start({ port })).rejects.toMatchObject({
      code: 'CONFIG_INVALID',
      message: expect.stringMatching(
        new RegExp(`^telemetry\\.port: ${port} on 127\\.0\\.0\\.1 is taken.*HSTU_TELEMETRY__PORT=0`),
      ),
    });
    await new Promise((resolve) => taken.close(resolve));
    await expect(start({ host: '192.0.2.1' })).rejects.toMatchObject({
      code: 'CONFIG_INVALID',
      message: expect.stringContaining('telemetry.host'),
    });
  });

  it('closes at once though a connection is kept alive, and frees the port', async () => {
    const { server } = await start();
    const agent = new Agent({ keepAlive: true });
    await new Promise((resolve) => get({ port: server.port, path: '/healthz', agent }, (r) => r.resume().on('end', resolve)));
    const began = performance.now();
    await open.pop()!.close();
    expect(performance.now() - began).toBeLessThan(400);
    agent.destroy();
    await start({ port: server.port });
  });

  it('does not wait for an answer that never comes', async () => {
    const { server, ask } = await start({ metrics: { contentType: 'x', text: () => new Promise(() => {}) } });
    const hanging = ask('/metrics').catch((error: unknown) => error);
    await new Promise((resolve) => setTimeout(resolve, 50));
    open.pop();
    const began = performance.now();
    await server.close();
    expect(performance.now() - began).toBeLessThan(1_500);
    expect(await hanging).toBeInstanceOf(Error);
  });
});
