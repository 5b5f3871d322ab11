/** One token for all connections of a process, asked for anew before it ends. */
import type { BearerToken } from './bearer-token.ts';

/** Share of its life after which a token is asked for anew: Kafka's own `sasl.login.refresh.window.factor`. */
const RENEW_AT = 0.8;
/**
 * And at the latest this long before its end. A session ends with the token that it began with, and kafkajs logs in again 10 s
 * before: with the same token that would be a login a request, of which a broker takes one a second.
 */
const RENEW_BEFORE_MS = 30_000;
/** A token that holds for less than this is not used: the brokers' clock is not ours. */
const MARGIN_MS = 5_000;

interface Kept extends BearerToken {
  readonly renewAtMs: number;
}

/**
 * Asks `fetch` where no token is held or most of its life is over (so for every login where it lives for half a minute); of several callers at once, for all of them once. Where that
 * fails, the token held is given for as long as it is good.
 */
export function keepToken(fetch: () => Promise<BearerToken>, now = Date.now): () => Promise<string> {
  let kept: Kept | undefined;
  let asking: Promise<Kept> | undefined;
  const ask = async (): Promise<Kept> => {
    const askedMs = now();
    const token = await fetch();
    const { expiresAtMs = Number.NEGATIVE_INFINITY } = token;
    kept = { ...token, renewAtMs: Math.min(askedMs + RENEW_AT * (expiresAtMs - askedMs), expiresAtMs - RENEW_BEFORE_MS) };
    return kept;
  };
  return async () => {
    if (kept !== undefined && now() < kept.renewAtMs) return kept.value;
    asking ??= ask().finally(() => {
      asking = undefined;
    });
    try {
      return (await asking).value;
    } catch (error) {
      if (kept?.expiresAtMs !== undefined && now() < kept.expiresAtMs - MARGIN_MS) return kept.value;
      throw error;
    }
  };
}
