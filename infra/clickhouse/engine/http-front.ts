/** ClickHouse's HTTP interface over the embedded engine, as far as `@clickhouse/client` uses it. */
import { timingSafeEqual } from 'node:crypto';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { gunzipSync, gzipSync } from 'node:zlib';
import { EngineFault, type EngineQuery, engineQuery } from './engine-query.ts';
import { formFields } from './form-fields.ts';

export interface EngineAnswer {
  readonly bytes: Uint8Array;
  readonly rowsRead: number;
  readonly bytesRead: number;
}

export interface HttpFrontOptions {
  /** Runs one query; the front never calls it a second time before the first is done. */
  readonly run: (query: EngineQuery) => Promise<EngineAnswer>;
  /** What every request must bring as its password (basic authorization or `X-ClickHouse-Key`). */
  readonly secret: string;
  /** Told whenever a lease begins or ends. */
  readonly onLeases?: (held: number) => void;
  /** Largest request, bytes. @default 512 MiB */
  readonly maxBodyBytes?: number;
}

/** Path of the request that stays open for as long as its client needs the engine. */
export const LEASE_PATH = '/lease';

/** A server that is not yet listening. */
export function createHttpFront({ run, secret, onLeases, maxBodyBytes = 536_870_912 }: HttpFrontOptions): Server {
  let turn: Promise<unknown> = Promise.resolve();
  let leases = 0;
  const inTurn = <T>(work: () => Promise<T>): Promise<T> => {
    const result = turn.then(work);
    turn = result.catch(() => undefined);
    return result;
  };

  const hold = (response: ServerResponse) => {
    onLeases?.(++leases);
    response.on('close', () => onLeases?.(--leases));
    response.writeHead(200).write('held\n');
  };

  const answer = async (request: IncomingMessage, response: ServerResponse) => {
    const url = new URL(request.url ?? '/', 'http://engine');
    if (url.pathname === '/ping') return void response.end('Ok.\n');
    if (!hasSecret(request, url, secret))
      throw new EngineFault(516, 'AUTHENTICATION_FAILED', 'Wrong or missing password of the embedded engine');
    if (url.pathname === LEASE_PATH) return hold(response);
    if (url.pathname !== '/') return void response.writeHead(404).end('There is no such path\n');
    const started = performance.now();
    const body = await readBody(request, maxBodyBytes);
    const { parameters, text } = parametersOf(request, url, body);
    const query = engineQuery(parameters, text);
    const { bytes, rowsRead, bytesRead } = await inTurn(() => run(query));
    const summary = {
      read_rows: String(rowsRead),
      read_bytes: String(bytesRead),
      written_rows: '0',
      written_bytes: '0',
      total_rows_to_read: '0',
      result_rows: '0',
      result_bytes: String(bytes.byteLength),
      elapsed_ns: String(Math.round((performance.now() - started) * 1e6)),
    };
    const compress =
      parameters.get('enable_http_compression') === '1' && /\bgzip\b/.test(String(request.headers['accept-encoding']));
    response.writeHead(200, {
      'content-type': 'text/plain; charset=UTF-8',
      'x-clickhouse-query-id': parameters.get('query_id') ?? '',
      'x-clickhouse-format': query.format,
      'x-clickhouse-summary': JSON.stringify(summary),
      ...(compress ? { 'content-encoding': 'gzip' } : {}),
    });
    response.end(compress ? gzipSync(bytes) : bytes);
  };

  return createServer({ maxHeaderSize: 1_048_576, keepAliveTimeout: 10_000 }, (request, response) => {
    answer(request, response).catch((error: unknown) => {
      const { code, message } = exceptionOf(error);
      if (response.headersSent) return response.destroy();
      response.writeHead(statusOf(code), {
        'x-clickhouse-exception-code': String(code),
        'content-type': 'text/plain; charset=UTF-8',
      });
      return response.end(`${message}\n`);
    });
  });
}

/** `/ping` alone needs none. */
function hasSecret(request: IncomingMessage, url: URL, secret: string): boolean {
  const [scheme, credentials = ''] = (request.headers.authorization ?? '').split(' ');
  const basic =
    scheme?.toLowerCase() === 'basic'
      ? Buffer.from(credentials, 'base64')
          .toString()
          .replace(/^[^:]*:/, '')
      : undefined;
  const given = Buffer.from(String(request.headers['x-clickhouse-key'] ?? basic ?? url.searchParams.get('password') ?? ''));
  const wanted = Buffer.from(secret);
  return given.byteLength === wanted.byteLength && timingSafeEqual(given, wanted);
}

async function readBody(request: IncomingMessage, maxBytes: number): Promise<Buffer> {
  const chunks: Buffer[] = [];
  let size = 0;
  for await (const chunk of request as AsyncIterable<Buffer>) {
    size += chunk.byteLength;
    if (size > maxBytes) throw new EngineFault(307, 'TOO_MANY_BYTES', `A request may have ${maxBytes} bytes`);
    chunks.push(chunk);
  }
  const body = Buffer.concat(chunks);
  const encoding = request.headers['content-encoding'];
  if (encoding === undefined || encoding === 'identity' || size === 0) return body;
  if (encoding === 'gzip') return gunzipSync(body);
  throw new EngineFault(48, 'NOT_IMPLEMENTED', `The embedded engine reads gzip only, not ${encoding}`);
}

const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

function parametersOf(request: IncomingMessage, url: URL, body: Buffer): { parameters: URLSearchParams; text: string } {
  const boundary = /^multipart\/form-data;.*boundary="?([^";]+)/i.exec(request.headers['content-type'] ?? '')?.[1];
  if (boundary !== undefined) {
    const parameters = new URLSearchParams(url.searchParams);
    for (const [name, value] of formFields(body, boundary)) parameters.append(name, value);
    return { parameters, text: '' };
  }
  try {
    return { parameters: url.searchParams, text: utf8.decode(body) };
  } catch {
    throw new EngineFault(48, 'NOT_IMPLEMENTED', 'The embedded engine takes UTF-8 text only: use a text format for the data');
  }
}

function exceptionOf(error: unknown): { code: number; message: string } {
  if (error instanceof EngineFault) return error;
  const message = error instanceof Error ? error.message : String(error);
  const code = /^Code: (\d+)\./.exec(message)?.[1];
  return code === undefined ? new EngineFault(1002, 'UNKNOWN_EXCEPTION', message) : { code: Number(code), message };
}

const NOT_FOUND = new Set([46, 47, 50, 56, 60, 81, 115]);
const BAD_REQUEST = new Set([6, 26, 27, 33, 36, 38, 41, 42, 43, 53, 62, 70, 72, 117, 130, 456]);

/** The status that a server gives for an exception. */
function statusOf(code: number): number {
  if (NOT_FOUND.has(code)) return 404;
  if (BAD_REQUEST.has(code)) return 400;
  if (code === 516) return 403;
  if (code === 48) return 501;
  return code === 307 ? 413 : 500;
}
