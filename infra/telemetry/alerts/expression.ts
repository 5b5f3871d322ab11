/** The part of PromQL that our rules are made of, as data: written out for Prometheus, and evaluated in tests. */

export type Comparison = '==' | '>' | '<';
/** A span of time as PromQL has it. */
export type Range = `${number}${'s' | 'm' | 'h'}`;

export type Expression =
  | { readonly op: 'metric'; readonly name: string; readonly labels: Readonly<Record<string, string>> }
  | {
      readonly op: 'increase' | 'rate' | 'deriv' | 'changes';
      readonly of: Expression & { readonly op: 'metric' };
      readonly range: Range;
    }
  | { readonly op: 'sum' | 'max' | 'count'; readonly by: readonly string[]; readonly of: Expression }
  | { readonly op: 'absent'; readonly of: Expression }
  | { readonly op: 'quantile'; readonly q: number; readonly of: Expression }
  | { readonly op: 'times'; readonly factor: number; readonly of: Expression }
  | { readonly op: 'compare'; readonly left: Expression; readonly is: Comparison; readonly right: Expression | number }
  | { readonly op: 'and'; readonly left: Expression; readonly right: Expression };

export const metric = (name: string, labels: Readonly<Record<string, string>> = {}) => ({ op: 'metric', name, labels }) as const;
export const over = (op: 'increase' | 'rate' | 'deriv' | 'changes', name: string, range: Range): Expression => ({
  op,
  of: metric(name),
  range,
});
export const by = (op: 'sum' | 'max' | 'count', labels: readonly string[], of: Expression): Expression => ({
  op,
  by: labels,
  of,
});
export const where = (left: Expression, is: Comparison, right: Expression | number): Expression => ({
  op: 'compare',
  left,
  is,
  right,
});
export const both = (left: Expression, right: Expression): Expression => ({ op: 'and', left, right });

/** As Prometheus reads it. */
export function promql(of: Expression | number): string {
  if (typeof of === 'number') return String(of);
  switch (of.op) {
    case 'metric': {
      const labels = Object.entries(of.labels).map(([key, value]) => `${key}="${value}"`);
      return labels.length === 0 ? of.name : `${of.name}{${labels.join(',')}}`;
    }
    case 'increase':
    case 'rate':
    case 'deriv':
    case 'changes':
      return `${of.op}(${promql(of.of)}[${of.range}])`;
    case 'sum':
    case 'max':
    case 'count':
      return `${of.op} by (${of.by.join(', ')}) (${promql(of.of)})`;
    case 'absent':
      return `absent(${promql(of.of)})`;
    case 'quantile':
      return `histogram_quantile(${of.q}, ${promql(of.of)})`;
    case 'times':
      return `${of.factor} * ${promql(of.of)}`;
    case 'compare':
      return `${promql(of.left)} ${of.is} ${promql(of.right)}`;
    case 'and':
      return `(${promql(of.left)}) ${of.op} (${promql(of.right)})`;
  }
}

/** Names of the metrics that it reads. */
export function metricsOf(of: Expression | number): readonly string[] {
  if (typeof of === 'number') return [];
  if (of.op === 'metric') return [of.name];
  if ('of' in of) return metricsOf(of.of);
  return [...metricsOf(of.left), ...metricsOf(of.right)];
}
