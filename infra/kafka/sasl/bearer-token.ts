/** A bearer token, as it comes from an endpoint or a program, and until when it holds. */
import { PipelineError } from '../../../schemas/errors.ts';

export interface BearerToken {
  readonly value: string;
  /** ms since the epoch; undefined where nothing says: then it is used once. */
  readonly expiresAtMs: number | undefined;
}

/** RFC 6750, section 2.1: nothing else may stand in a login, whose parts are separated by control characters. */
const B64TOKEN = /^[A-Za-z0-9\-._~+/]+=*$/;

/** Longer answers are no tokens. */
export const MAX_TOKEN_BYTES = 65_536;

/**
 * @param text a token, or JSON `{"access_token", "expires_in"}` as token endpoints answer (RFC 6749, section 5.1)
 * @param whence for the message
 * @throws PipelineError `KAFKA_AUTHENTICATION` where it is neither; the text is never told
 */
export function parseToken(text: string, whence: string, nowMs: number): BearerToken {
  const trimmed = text.trim();
  const json = trimmed.startsWith('{') ? fieldsOf(trimmed) : { access_token: trimmed };
  const { access_token: value, expires_in: seconds } = json ?? {};
  if (typeof value !== 'string' || !B64TOKEN.test(value)) {
    const wanted = 'a token of the characters of RFC 6750, or JSON {"access_token", "expires_in"}';
    throw new PipelineError('KAFKA_AUTHENTICATION', `${whence} gave no token: expected ${wanted}`);
  }
  // Some write the number as text.
  const lifeMs = 1000 * Number(seconds);
  return { value, expiresAtMs: Number.isFinite(lifeMs) && lifeMs > 0 ? nowMs + lifeMs : expiryOf(value) };
}

/** `exp` of a JSON Web Token (RFC 7519, section 4.1.4), ms; undefined for a token of another kind. */
function expiryOf(token: string): number | undefined {
  const payload = token.split('.')[1];
  if (payload === undefined) return undefined;
  const { exp } = fieldsOf(Buffer.from(payload, 'base64url').toString('utf8')) ?? {};
  return typeof exp === 'number' && Number.isFinite(exp) ? 1000 * exp : undefined;
}

function fieldsOf(text: string): Readonly<Record<string, unknown>> | undefined {
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === 'object' && value !== null ? (value as Record<string, unknown>) : undefined;
  } catch {
    return undefined;
  }
}
