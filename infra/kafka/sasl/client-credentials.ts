/** A token by OAuth 2.0 client credentials: one POST to an identity provider. */
import { messageOf, PipelineError } from '../../../schemas/errors.ts';
import type { ClientCredentials } from '../../../schemas/kafka-sasl.ts';
import { type BearerToken, MAX_TOKEN_BYTES, parseToken } from './bearer-token.ts';

/** RFC 6749, section 2.3.1: id and secret in a Basic header, each form-encoded first. */
const formEncoded = (text: string): string => new URLSearchParams({ x: text }).toString().slice(2);

/**
 * @throws PipelineError `KAFKA_AUTHENTICATION` where the provider refuses, `KAFKA_UNAVAILABLE` where it does not answer in time
 */
export async function requestToken(credentials: ClientCredentials, timeoutMs: number, now = Date.now): Promise<BearerToken> {
  const { tokenUrl, clientId, clientSecret, scope, audience } = credentials;
  // Of an address only what names the provider.
  const whence = `the token endpoint ${new URL(tokenUrl).origin}${new URL(tokenUrl).pathname}`;
  const login = Buffer.from(`${formEncoded(clientId)}:${formEncoded(clientSecret)}`).toString('base64');
  const form = { grant_type: 'client_credentials', ...(scope && { scope }), ...(audience && { audience }) };
  let status: number;
  let text: string;
  try {
    const response = await fetch(tokenUrl, {
      method: 'POST',
      headers: {
        authorization: `Basic ${login}`,
        accept: 'application/json',
        'content-type': 'application/x-www-form-urlencoded',
      },
      body: new URLSearchParams(form).toString(),
      // The secret goes to where the configuration says, and nowhere else.
      redirect: 'error',
      signal: AbortSignal.timeout(timeoutMs),
    });
    status = response.status;
    text = await bounded(response);
  } catch (thrown) {
    const cause = (thrown as { readonly cause?: unknown }).cause ?? thrown;
    const timedOut = (thrown as { readonly name?: unknown }).name === 'TimeoutError';
    const why = timedOut ? `did not answer within ${timeoutMs} ms` : `cannot be asked: ${messageOf(cause)}`;
    throw new PipelineError('KAFKA_UNAVAILABLE', `${whence} ${why}`);
  }
  if (status === 200) return parseToken(text, whence, now());
  const mayPass = status === 429 || status >= 500;
  throw new PipelineError(
    mayPass ? 'KAFKA_UNAVAILABLE' : 'KAFKA_AUTHENTICATION',
    `${whence} answered ${status}${reasonOf(text)}${mayPass ? '' : ' (check kafka.sasl.clientCredentials)'}`,
  );
}

async function bounded(response: Response): Promise<string> {
  const chunks: Uint8Array[] = [];
  let bytes = 0;
  for await (const chunk of (response.body ?? []) as AsyncIterable<Uint8Array>) {
    bytes += chunk.byteLength;
    if (bytes > MAX_TOKEN_BYTES) throw new Error(`its answer is longer than ${MAX_TOKEN_BYTES} bytes`);
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString('utf8');
}

/** `error` of a refusal (RFC 6749, section 5.2): a word, never a part of what was sent. */
function reasonOf(text: string): string {
  try {
    const { error } = JSON.parse(text) as { readonly error?: unknown };
    return typeof error === 'string' && /^[a-z_]{1,64}$/.test(error) ? `: ${error}` : '';
  } catch {
    return '';
  }
}
