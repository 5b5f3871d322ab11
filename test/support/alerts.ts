/** Which alerts a Prometheus would fire on scrapes of instances: the forms that our rules use. */
import type { AlertRule } from '../../infra/telemetry/alerts/alert-rules.ts';
import type { Expression } from '../../infra/telemetry/alerts/expression.ts';

/** One instance's text at one scrape; null where it did not answer. */
export type Scrape = string | null;

/** What the instances answered at a moment; an instance that is not there is not scraped. */
export interface Round {
  readonly atS: number;
  readonly scrapes: Readonly<Record<string, Scrape>>;
}

type Labels = Readonly<Record<string, string>>;
interface Sample {
  readonly name: string;
  readonly labels: Labels;
  readonly value: number;
}
type Vector = readonly Omit<Sample, 'name'>[];

const JOB = 'hstu-streams';
/** As `scrape_interval`; a series that has not come for 5 min is no more, one of a target that does not answer at once. */
export const SCRAPE_S = 15;

export function parseScrape(text: string): Sample[] {
  return [...text.matchAll(/^(\w+)(?:\{(.*)\})? (\S+)$/gm)].map(([, name, labels = '', value]) => ({
    name: name!,
    labels: Object.fromEntries([...labels.matchAll(/(\w+)="((?:[^"\\]|\\.)*)"/g)].map(([, key, text]) => [key!, text!])),
    value: value === '+Inf' ? Number.POSITIVE_INFINITY : Number(value),
  }));
}

/** Names of the rules that fire at some round, with the second at which each did first. */
export function alertsOf(rules: readonly AlertRule[], rounds: readonly Round[]): ReadonlyMap<string, number> {
  const stored = rounds.map(({ atS, scrapes }) => ({ atS, byName: byName(Object.entries(scrapes).flatMap(samplesOf)) }));
  const fired = new Map<string, number>();
  for (const { alert, expression, for: held = '0s' } of rules) {
    const sinceS = new Map<string, number>();
    stored.forEach(({ atS }, i) => {
      const now = new Set(evaluate(expression, stored.slice(0, i + 1), atS).map(({ labels }) => JSON.stringify(labels)));
      for (const key of sinceS.keys()) if (!now.has(key)) sinceS.delete(key);
      for (const key of now) {
        sinceS.set(key, sinceS.get(key) ?? atS);
        if (atS - sinceS.get(key)! >= secondsOf(held) && !fired.has(alert)) fired.set(alert, atS);
      }
    });
  }
  return fired;
}

function samplesOf([instance, text]: readonly [string, Scrape]): Sample[] {
  const target = { job: JOB, instance };
  const up = { name: 'up', labels: target, value: text === null ? 0 : 1 };
  return [up, ...parseScrape(text ?? '').map((sample) => ({ ...sample, labels: { ...sample.labels, ...target } }))];
}

interface Stored {
  readonly atS: number;
  readonly byName: ReadonlyMap<string, readonly Sample[]>;
}

function byName(samples: readonly Sample[]): Map<string, Sample[]> {
  const found = new Map<string, Sample[]>();
  for (const sample of samples) {
    const list = found.get(sample.name) ?? [];
    found.set(sample.name, list);
    list.push(sample);
  }
  return found;
}

function evaluate(of: Expression, stored: readonly Stored[], atS: number): Vector {
  switch (of.op) {
    case 'metric':
      return (stored.at(-1)!.byName.get(of.name) ?? []).filter(({ labels }) => matches(labels, of.labels));
    case 'increase':
    case 'changes': {
      const fromS = atS - secondsOf(of.range);
      const series = new Map<string, { labels: Labels; values: number[] }>();
      for (const { atS: at, byName: samples } of stored)
        if (at > fromS)
          for (const { labels, value } of samples.get(of.of.name) ?? []) {
            if (!matches(labels, of.of.labels)) continue;
            const key = JSON.stringify(labels);
            series.set(key, { labels, values: [...(series.get(key)?.values ?? []), value] });
          }
      const rise = (values: readonly number[]) =>
        values.reduce((sum, value, i) => {
          const before = values[i - 1] ?? value;
          if (of.op === 'changes') return sum + (value === before ? 0 : 1);
          return sum + (value < before ? value : value - before);
        }, 0);
      return [...series.values()]
        .filter(({ values }) => of.op === 'changes' || values.length > 1)
        .map(({ labels, values }) => ({ labels, value: rise(values) }));
    }
    case 'sum':
    case 'max':
    case 'count': {
      const groups = new Map<string, { labels: Labels; values: number[] }>();
      for (const { labels, value } of evaluate(of.of, stored, atS)) {
        const kept = Object.fromEntries(of.by.flatMap((key) => (labels[key] === undefined ? [] : [[key, labels[key]]])));
        const key = JSON.stringify(kept);
        groups.set(key, { labels: kept, values: [...(groups.get(key)?.values ?? []), value] });
      }
      const fold = {
        sum: (v: number[]) => v.reduce((a, b) => a + b, 0),
        max: (v: number[]) => Math.max(...v),
        count: (v: number[]) => v.length,
      };
      return [...groups.values()].map(({ labels, values }) => ({ labels, value: fold[of.op](values) }));
    }
    case 'absent':
      return evaluate(of.of, stored, atS).length === 0 ? [{ labels: {}, value: 1 }] : [];
    case 'times':
      return evaluate(of.of, stored, atS).map(({ labels, value }) => ({ labels, value: of.factor * value }));
    case 'compare': {
      const { right } = of;
      const compare = {
        '==': (a: number, b: number) => a === b,
        '>': (a: number, b: number) => a > b,
        '<': (a: number, b: number) => a < b,
      }[of.is];
      const left = evaluate(of.left, stored, atS);
      if (typeof right === 'number') return left.filter(({ value }) => compare(value, right));
      const others = evaluate(right, stored, atS);
      return left.filter(({ labels, value }) =>
        others.some((other) => same(labels, other.labels) && compare(value, other.value)),
      );
    }
    case 'and': {
      const right = evaluate(of.right, stored, atS);
      return evaluate(of.left, stored, atS).filter(({ labels }) => right.some((other) => same(labels, other.labels)));
    }
    default:
      throw new Error(`${of.op} is not evaluated here: only what pages is`);
  }
}

const matches = (labels: Labels, wanted: Labels): boolean =>
  Object.entries(wanted).every(([key, value]) => labels[key] === value);
const same = (a: Labels, b: Labels): boolean => Object.keys({ ...a, ...b }).every((key) => a[key] === b[key]);
const secondsOf = (range: string): number =>
  Number.parseInt(range, 10) * { s: 1, m: 60, h: 3_600 }[range.at(-1) as 's' | 'm' | 'h'];

/** Healthy for a while, then as `fault` says for a minute: the pages that fire in it. */
export function pagesWithinAMinute(
  rules: readonly AlertRule[],
  healthy: string,
  fault: Scrape | ((second: number) => Scrape),
): string[] {
  const textAt = typeof fault === 'function' ? fault : () => fault;
  const before = Array.from({ length: 8 }, (_, i) => ({ atS: i * SCRAPE_S, scrapes: { a: healthy } }));
  const from = before.length * SCRAPE_S;
  const during = Array.from({ length: 60 / SCRAPE_S + 1 }, (_, i) => ({
    atS: from + i * SCRAPE_S,
    scrapes: { a: textAt(i * SCRAPE_S) },
  }));
  const pages = rules.filter(({ severity }) => severity === 'page');
  return [...alertsOf(pages, [...before, ...during]).keys()];
}
