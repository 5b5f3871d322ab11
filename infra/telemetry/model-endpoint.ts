/** The one thing an instance lets itself be told over HTTP, by those on its own machine: to change its model. */
import type { IncomingMessage } from 'node:http';
import { isIPv4 } from 'node:net';
import { messageOf, PipelineError } from '../../schemas/errors.ts';
import { isAuthorized, liesIn, type ModelDoor } from './model-door.ts';

export interface ModelControl {
  /** What is served, what is under way, how the last change ended. */
  readonly status: object;
  /**
   * @param path folder of the bundle; undefined for the one that the configuration names
   * @throws PipelineError where the change is refused
   */
  change(path?: string): Promise<object>;
}

export interface JsonAnswer {
  readonly status: number;
  readonly body: object;
}

const OFF = 'no change is taken here: telemetry.host is open to other machines, and no model.tokenFile is set';

const MAX_BODY_BYTES = 65_536;

/**
 * `GET /model`: the status. `POST /model` with JSON `{"bundle": "/folder"}`, or `{}`: 202 when the change has begun, 409 with why
 * when it is refused.
 *
 * Only this machine may ask for a change, wherever the port is open to. JSON by its content type, which a page in a browser
 * cannot send elsewhere without being let; and neither one that has made its own name point here (DNS rebinding): the name stands
 * in `Host`, and no page can take it away, or `Origin` from what it posts.
 *
 * @param door undefined where no change is taken
 * @param configuredHost a further name by which this machine may be asked. @default none
 */
export async function answerModel(
  request: IncomingMessage,
  control: ModelControl | undefined,
  door: ModelDoor | undefined,
  configuredHost?: string,
): Promise<JsonAnswer> {
  const foreign = foreignIn(request, configuredHost);
  if (foreign !== undefined) return refuse(403, foreign);
  if (control === undefined) return refuse(503, 'the stream is being opened: ask again');
  if (request.method !== 'POST') return { status: 200, body: control.status };
  if (!isFromHere(request)) return refuse(403, 'a change of the model is taken from this machine only');
  if (!/^application\/json\b/i.test(request.headers['content-type'] ?? ''))
    return refuse(415, 'expected content-type application/json');
  if (door === undefined) return refuse(403, OFF);
  if (!isAuthorized(request.headers.authorization, door.token))
    return refuse(401, 'expected the token of model.tokenFile as `authorization: Bearer …`');
  const asked = parseAsked(await bodyOf(request));
  if (typeof asked === 'string') return refuse(400, asked);
  if (asked.bundle !== undefined && !(await liesIn(asked.bundle, door.allowedFolder)))
    return refuse(403, `bundle: there is none of that path in ${door.allowedFolder} (model.allowedFolder)`);
  try {
    return { status: 202, body: await control.change(asked.bundle) };
  } catch (error) {
    const code = error instanceof PipelineError ? error.code : undefined;
    return { status: 409, body: { problem: messageOf(error), ...(code !== undefined && { code }), status: control.status } };
  }
}

const refuse = (status: number, problem: string): JsonAnswer => ({ status, body: { problem } });

function isFromHere({ socket: { remoteAddress, localAddress } }: IncomingMessage): boolean {
  if (remoteAddress === undefined) return false;
  return remoteAddress === localAddress || /^(::ffff:)?127\.|^::1$/.test(remoteAddress);
}

/** What of a request only a page in a browser would send, or who was led here by a name of another's; undefined where nothing is. */
function foreignIn({ headers: { host = '', origin } }: IncomingMessage, configured: string | undefined): string | undefined {
  if (origin !== undefined) return 'the model is not for pages in a browser: no Origin header is taken';
  const name = host
    .replace(/:\d+$/, '')
    .replace(/^\[(.*)\]$/, '$1')
    .toLowerCase();
  if (name === configured?.toLowerCase() || name === 'localhost' || name === '::1') return undefined;
  if (isIPv4(name) && name.startsWith('127.')) return undefined;
  return 'the model is asked for by a loopback address, or by telemetry.host: another Host header is not taken';
}

/** Undefined when it is too long. */
async function bodyOf(request: IncomingMessage): Promise<string | undefined> {
  const chunks: Buffer[] = [];
  let bytes = 0;
  for await (const chunk of request as AsyncIterable<Buffer>) {
    bytes += chunk.length;
    if (bytes > MAX_BODY_BYTES) return undefined;
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString('utf8');
}

/** What was asked for, or what is wrong with it. */
function parseAsked(body: string | undefined): { readonly bundle?: string } | string {
  const wanted = 'expected {"bundle": "/folder of the bundle"}, or {} for the one that the configuration names';
  if (body === undefined) return `${wanted}, of at most ${MAX_BODY_BYTES} bytes`;
  let json: unknown;
  try {
    json = JSON.parse(body);
  } catch (cause) {
    return `${wanted}; not JSON: ${messageOf(cause)}`;
  }
  if (typeof json !== 'object' || json === null || Array.isArray(json)) return wanted;
  const { bundle, ...more } = json as { readonly bundle?: unknown };
  if (Object.keys(more).length > 0) return `${wanted}; unknown: ${Object.keys(more).join(', ')}`;
  if (bundle === undefined) return {};
  return typeof bundle === 'string' && bundle !== '' ? { bundle } : wanted;
}
