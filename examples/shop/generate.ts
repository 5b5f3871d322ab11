/**
 * A shop's events, seeded, with the truth beside them: what a collector would write, in mixed kinds and forms, and what of it is an action of
 * whom. Three months of history in files, then a stream keyed by session.
 */

export interface ShopOptions {
  /** Raw records in all, about: nine tenths of them history. */
  readonly events: number;
  /** @default 1 */
  readonly seed?: number;
}

/** What a raw record says: nothing (ignored or refused), or actions of one user. */
export interface TruthLine {
  readonly user: string;
  readonly id: string;
  readonly action: string;
  readonly entity: string;
  readonly value?: number;
  readonly atMs: number;
}

/** What was planted beside the good records, by name. */
export type Planted = 'ignored' | 'noUser' | 'badTime' | 'unknownKind' | 'notJson' | 'lineWithoutSku';

export interface ShopRecord {
  readonly phase: 'history' | 'live';
  readonly atMs: number;
  /** Orders of the history lie in a file of their own. */
  readonly kind: 'event' | 'order';
  /** As it is written; a text where it is no JSON. */
  readonly raw: Readonly<Record<string, unknown>> | string;
  /** What a collector keys by. */
  readonly session: string;
  readonly truth: readonly TruthLine[];
  readonly planted?: Planted;
}

export const PRODUCTS = 600;
/** Came after the model was made: known to the shop, not to the model. */
export const NEW_PRODUCTS = 20;
export const BRANDS = 40;
const CATEGORIES = 12;
const DAY_MS = 86_400_000;
const HISTORY_DAYS = 90;
export const START_MS = Date.UTC(2024, 0, 1);
const LIVE_HOURS = 6;

export const brandOf = (product: number): number => 1 + ((product * 7) % BRANDS);
export const categoryOf = (product: number): number => product % CATEGORIES;
const priceOf = (product: number): number => Math.round(100 * (2 + ((product * 37) % 900) / 10)) / 100;

/** Regulars, visitors of one event, and a few bots that look at everything. */
interface Customer {
  readonly id: string;
  readonly bought: number[];
  readonly taste: number;
  session: number;
  lastMs: number;
}

/** In the order of their times, history first. */
export function* shopRecords({ events, seed = 1 }: ShopOptions): Generator<ShopRecord> {
  const random = mulberry(seed);
  const pick = (n: number): number => Math.floor(n * random());
  const regulars: Customer[] = Array.from({ length: Math.max(20, Math.round(events / 60)) }, (_, i) => customer(`c${i + 1}`, i));
  const bots: Customer[] = Array.from({ length: 3 }, (_, i) => customer(`bot${i + 1}`, i));
  const history = Math.round(events * 0.9);
  let visitors = 0;
  for (let n = 0; n < events; n++) {
    const live = n >= history;
    const share = live ? (n - history) / Math.max(1, events - history) : n / history;
    const atMs = Math.floor(
      live ? START_MS + HISTORY_DAYS * DAY_MS + share * LIVE_HOURS * 3_600_000 : START_MS + share * HISTORY_DAYS * DAY_MS,
    );
    const dice = random();
    const who =
      dice < 0.05
        ? bots[pick(bots.length)]!
        : dice < 0.08
          ? customer(`v${++visitors}`, visitors)
          : regulars[Math.floor(regulars.length * random() ** 2)]!;
    if (atMs - who.lastMs > 1_800_000) who.session += 1;
    who.lastMs = atMs;
    const session = `${who.id}-${who.session}`;
    const base = { id: `e${n}`, session, user: { id: who.id }, ts: new Date(atMs).toISOString() };
    const phase = live ? 'live' : 'history';
    const one = (raw: ShopRecord['raw'], truth: readonly TruthLine[], more: Partial<ShopRecord> = {}): ShopRecord => ({
      phase,
      atMs,
      kind: 'event',
      raw,
      session,
      truth,
      ...more,
    });
    const said = (action: string, entity: string, more: { readonly id?: string; readonly value?: number } = {}): TruthLine => ({
      user: who.id,
      id: base.id,
      action,
      entity,
      atMs,
      ...more,
    });
    /** Of the season, of the customer's taste, or anything; some of it too new for the model. */
    const product = (): number => {
      const week = Math.floor(atMs / (7 * DAY_MS)) % CATEGORIES;
      const wanted = random() < 0.3 ? week : random() < 0.6 ? who.taste : pick(CATEGORIES);
      const found = 1 + wanted + CATEGORIES * Math.floor((PRODUCTS / CATEGORIES) * random() ** 2);
      return random() < 0.01 ? PRODUCTS + 1 + pick(NEW_PRODUCTS) : Math.min(PRODUCTS, found);
    };
    const item = (sku: number) => ({ id: sku, price: priceOf(sku), brand: `b${brandOf(sku)}` });

    const spoilt = random();
    if (spoilt < 0.002) yield one({ ...base, type: 'view', user: null, product: item(product()) }, [], { planted: 'noUser' });
    else if (spoilt < 0.004)
      yield one({ ...base, type: 'view', ts: 'soon', product: item(product()) }, [], { planted: 'badTime' });
    else if (spoilt < 0.006) yield one({ ...base, type: 'refund', product: item(product()) }, [], { planted: 'unknownKind' });
    else if (spoilt < 0.007) yield one(`{"id":"${base.id}","type":"view","user":`, [], { planted: 'notJson' });
    else {
      const kind = random();
      if (kind < 0.08) yield one({ ...base, type: 'search', q: 'shoes' }, [], { planted: 'ignored' });
      else if (kind < 0.12) yield one({ id: base.id, type: 'heartbeat', session, ts: base.ts }, [], { planted: 'ignored' });
      else if (kind < 0.16) {
        const brand = `b${1 + pick(BRANDS)}`;
        yield one({ ...base, type: 'follow', brand: { id: brand } }, [said('follow', `brand:${brand}`)]);
      } else if (kind < 0.26 && !who.id.startsWith('bot')) {
        const count = 1 + pick(3);
        const skus = Array.from({ length: count }, () =>
          who.bought.length > 0 && random() < 0.4 ? who.bought[pick(who.bought.length)]! : product(),
        );
        const lines: { sku?: number; price: number; qty: number }[] = skus.map((sku) => ({
          sku,
          price: priceOf(sku),
          qty: 1 + pick(2),
        }));
        const bare = random() < 0.01;
        const truth = lines.map(({ sku, price }, part) =>
          said('purchase', `product:${sku}`, { id: `${base.id}/${part}`, value: price }),
        );
        if (bare) lines.push({ price: 1, qty: 1 });
        who.bought.push(...skus);
        yield one({ ...base, type: 'order', state: 'paid', order: { no: n, lines } }, truth, {
          kind: live ? 'event' : 'order',
          ...(bare && { planted: 'lineWithoutSku' }),
        });
      } else {
        const sku = product();
        const type = kind < 0.4 ? 'cart' : 'view';
        yield one({ ...base, type, product: item(sku) }, [said(type, `product:${sku}`, { value: priceOf(sku) })]);
      }
    }
  }
}

const customer = (id: string, i: number): Customer => ({
  id,
  bought: [],
  taste: (i * 5) % CATEGORIES,
  session: 0,
  lastMs: Number.NEGATIVE_INFINITY,
});

/** Mulberry32, public domain. */
function mulberry(seed: number): () => number {
  let state = seed | 0;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}
