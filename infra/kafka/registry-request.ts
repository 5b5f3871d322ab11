/** One request to a schema registry's REST interface: JSON in and out, within a time. */
import { messageOf } from '../../schemas/errors.ts';

export interface RegistryRequest {
  readonly headers: Readonly<Record<string, string>>;
  /** Posted as JSON; without it the request is a GET. */
  readonly body?: string | undefined;
  readonly timeoutMs: number;
  readonly signal?: AbortSignal | undefined;
}

/** The registry answered, and not with success. */
export class RegistryResponseError extends Error {
  readonly status: number;

  constructor(status: number, message: string) {
    super(message);
    this.status = status;
  }
}

/** Characters of a refusal that are worth repeating. */
const MAX_DETAIL_LENGTH = 300;

/**
 * @returns what the answer's JSON holds
 * @throws RegistryResponseError for an answer of another status than 2xx; Error where none came, or none in JSON
 */
export async function requestJson(url: string, { headers, body, timeoutMs, signal }: RegistryRequest): Promise<unknown> {
  const timeout = AbortSignal.timeout(timeoutMs);
  let response: Response;
  let text: string;
  try {
    response = await fetch(url, {
      ...(body === undefined ? {} : { method: 'POST', body }),
      headers: body === undefined ? headers : { ...headers, 'content-type': 'application/vnd.schemaregistry.v1+json' },
      signal: signal === undefined ? timeout : AbortSignal.any([timeout, signal]),
    });
    text = await response.text();
  } catch (thrown) {
    if (timeout.aborted) throw new Error(`did not answer within ${timeoutMs} ms`);
    if (signal?.aborted) throw new Error('was not waited for: we are stopping');
    const cause = (thrown as { readonly cause?: unknown }).cause;
    throw new Error(`cannot be reached: ${messageOf(cause ?? thrown)}`);
  }
  if (!response.ok) throw new RegistryResponseError(response.status, `answered ${response.status}${detailOf(text)}`);
  try {
    return JSON.parse(text);
  } catch {
    throw new Error(`answered ${response.status} without JSON: is it a schema registry?`);
  }
}

/** The reason that a refusal gives, if it is the registry's own. */
function detailOf(text: string): string {
  try {
    const { message } = JSON.parse(text) as { readonly message?: unknown };
    return typeof message === 'string' ? `: ${message.slice(0, MAX_DETAIL_LENGTH)}` : '';
  } catch {
    return '';
  }
}
