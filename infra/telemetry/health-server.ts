/** What an orchestrator and Prometheus ask over HTTP: does it live, may it have work, what does it measure. */
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo, Socket } from 'node:net';
import { messageOf, PipelineError } from '../../schemas/errors.ts';
import type { ModelDoor } from './model-door.ts';
import { answerModel, type ModelControl } from './model-endpoint.ts';

export interface Health {
  /** `RUNNING` is ready, unless there is something in `unready`; `FAILED` is dead. */
  readonly state: string;
  /** When this state began, ms since the epoch. */
  readonly sinceMs: number;
  /** Why, where there is something to say. */
  readonly reason?: string | undefined;
  /** What stands in the way of the work, although the process lives. @default nothing */
  readonly unready?: readonly { readonly message: string; readonly sinceMs: number; readonly [fact: string]: unknown }[];
}

export const isReady = ({ state, unready = [] }: Health): boolean => state === 'RUNNING' && unready.length === 0;

export interface HealthServerOptions {
  readonly host: string;
  /** 0 takes any free port. */
  readonly port: number;
  readonly health: () => Health;
  /** When the oldest batch in flight was read, ms since the epoch; undefined when none is. */
  readonly progress?: () => number | undefined;
  /** A batch in flight for longer than this makes the process unhealthy, ms. @default 120000 */
  readonly stallLimitMs?: number;
  readonly metrics: { readonly contentType: string; text(): Promise<string> };
  /** Serves `/model` as well; undefined until there is one. @default not served */
  readonly model?: () => ModelControl | undefined;
  /** Who may change it. @default nobody */
  readonly modelDoor?: ModelDoor | undefined;
  /** Connections at once, at most; the one that has waited longest without a request gives way to a further one. @default 64 */
  readonly maxConnections?: number;
  /** Clock, ms since the epoch. @default Date.now */
  readonly now?: () => number;
}

export interface HealthServer {
  /** The port taken. */
  readonly port: number;
  /** Answers what is being asked, and no more: connections that are kept alive are closed. */
  close(): Promise<void>;
}

interface Answer {
  readonly status: number;
  readonly type: string;
  readonly body: string;
}

const CLOSE_WITHIN_MS = 500;

/** @throws PipelineError `CONFIG_INVALID` when the address cannot be listened on: which, why, and what to set instead */
export async function startHealthServer(options: HealthServerOptions): Promise<HealthServer> {
  const server = createServer({ requestTimeout: 10_000, headersTimeout: 5_000 }, (request, response) => {
    void answer(request, options).then((given) => send(request, response, given));
  });
  boundConnections(server, options.maxConnections ?? 64);
  await listen(server, options);
  return { port: (server.address() as AddressInfo).port, close: () => close(server) };
}

/**
 * Who opens connections and sends nothing, or half a request, must not take the probes' answers: where all places are taken, the
 * oldest connection that is not being answered is closed for the new one.
 */
function boundConnections(server: Server, limit: number): void {
  const waiting = new Set<Socket>();
  let open = 0;
  server.on('connection', (socket) => {
    open += 1;
    if (open > limit) (waiting.values().next().value ?? socket).destroy();
    if (!socket.destroyed) waiting.add(socket);
    socket.once('close', () => {
      open -= 1;
      waiting.delete(socket);
    });
  });
  // From a whole head on it is answered, unless it has a body that has still to come.
  server.on('request', ({ method, socket }: IncomingMessage, response: ServerResponse) => {
    if (method === 'POST') return;
    waiting.delete(socket);
    response.once('close', () => socket.destroyed || waiting.add(socket));
  });
}

async function answer(request: IncomingMessage, options: HealthServerOptions): Promise<Answer> {
  const path = request.url?.split('?')[0];
  const isModel = path === '/model' && options.model !== undefined;
  if (request.method !== 'GET' && request.method !== 'HEAD' && !(isModel && request.method === 'POST'))
    return text(405, `only GET and HEAD${isModel ? ', and POST,' : ''} are answered here`);
  try {
    if (isModel) return json(await answerModel(request, options.model!(), options.modelDoor, options.host));
    switch (path) {
      case '/healthz':
        return healthz(options);
      case '/readyz':
        return readyz(options.health());
      case '/metrics':
        return { status: 200, type: options.metrics.contentType, body: await options.metrics.text() };
      default:
        return text(404, `here are /healthz, /readyz and /metrics${options.model === undefined ? '' : ', and /model'}`);
    }
  } catch (error) {
    return text(500, messageOf(error));
  }
}

function healthz({ health, progress, stallLimitMs = 120_000, now = Date.now }: HealthServerOptions): Answer {
  const current = health();
  const oldestMs = progress?.();
  const stalledMs = oldestMs === undefined ? 0 : now() - oldestMs;
  if (current.state !== 'FAILED' && stalledMs > stallLimitMs)
    return state({ ...current, reason: `a batch is in flight for ${stalledMs} ms; allowed: ${stallLimitMs} ms` }, false);
  return state(current, current.state !== 'FAILED');
}

function readyz(health: Health): Answer {
  const { unready = [] } = health;
  return state({ ...health, reason: health.reason ?? unready[0]?.message }, isReady(health), unready);
}

const state = ({ state, sinceMs, reason }: Health, good: boolean, reasons: Health['unready'] = []): Answer =>
  json({
    status: good ? 200 : 503,
    body: {
      state,
      since: isoOf(sinceMs),
      ...(reason !== undefined && { reason }),
      ...(reasons.length > 0 && { reasons: reasons.map(({ sinceMs: ms, ...facts }) => ({ ...facts, since: isoOf(ms) })) }),
    },
  });

const isoOf = (ms: number): string => new Date(ms).toISOString();

const json = ({ status, body }: { readonly status: number; readonly body: object }): Answer => ({
  status,
  type: 'application/json; charset=utf-8',
  body: `${JSON.stringify(body)}\n`,
});

const text = (status: number, body: string): Answer => ({ status, type: 'text/plain; charset=utf-8', body: `${body}\n` });

function send(request: IncomingMessage, response: ServerResponse, { status, type, body }: Answer): void {
  response.writeHead(status, {
    'content-type': type,
    'content-length': Buffer.byteLength(body),
    'cache-control': 'no-store',
    ...(status === 405 && { allow: 'GET, HEAD' }),
  });
  response.end(request.method === 'HEAD' ? undefined : body);
}

function listen(server: Server, { host, port }: HealthServerOptions): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', (cause: NodeJS.ErrnoException) => reject(cannotListen(cause, host, port)));
    server.listen({ host, port }, resolve);
  });
}

function cannotListen(cause: NodeJS.ErrnoException, host: string, port: number): PipelineError {
  const message =
    cause.code === 'EADDRINUSE'
      ? `telemetry.port: ${port} on ${host} is taken by another process; set another, or 0 for any free one (HSTU_TELEMETRY__PORT=0)`
      : cause.code === 'EACCES'
        ? `telemetry.port: ${port} on ${host} may not be opened by this user; set one above 1023 (HSTU_TELEMETRY__PORT=9464)`
        : `telemetry.host: cannot listen on ${host}:${port} (${messageOf(cause)}); set an address of this machine (HSTU_TELEMETRY__HOST=0.0.0.0 for all)`;
  return new PipelineError('CONFIG_INVALID', message, { cause });
}

function close(server: Server): Promise<void> {
  return new Promise((resolve) => {
    const timer = setTimeout(() => server.closeAllConnections(), CLOSE_WITHIN_MS);
    server.close(() => {
      clearTimeout(timer);
      resolve();
    });
    server.closeIdleConnections();
  });
}
