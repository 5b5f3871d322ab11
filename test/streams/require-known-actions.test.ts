import { describe, expect, it } from 'vitest';
import type { Bundle } from '../../models/hstu/bundle.ts';
import { parseConfig } from '../../schemas/config.ts';
import { requireKnownActions } from '../../streams/require-known-actions.ts';
import { CACHEABLE, RANKING } from '../models/bundles.ts';

const plain = CACHEABLE['plain']!;
const additive = RANKING['STU, additive tokens, values, both biases']!;

const check = (bundle: Bundle, actions: { readonly files: readonly string[]; readonly kafka?: string }) => {
  const mapping = (action: string) => ({ userId: '{u}', action, entity: '{e}', eventTime: { field: 't', unit: 's' } });
  const files = actions.files.map((action) => ({ path: 'x.csv', format: 'csv', mapping: mapping(action) }));
  const kafka = { brokers: ['localhost:9092'], ...(actions.kafka !== undefined && { mapping: mapping(actions.kafka) }) };
  const source = files.length > 0 ? { source: { files } } : {};
  const config = parseConfig({ bundle: 'none', ...source, kafka, sequence: { erasureAction: 'erase' } }, 'this test');
  return () => requireKnownActions(config, bundle);
};

describe('a constant action of a mapping', () => {
  it('may be any that the bundle encodes or skips, several at once in a token layout, an erasure, or left to the record', () => {
    expect(check(plain, { files: ['view', 'tag', 'erase', '{kind}', 'a{kind}'], kafka: 'view' })).not.toThrow();
    expect(check(additive, { files: ['view+like', 'rate'] })).not.toThrow();
    expect(check(plain, { files: [] })).not.toThrow();
  });

  it('that the bundle does not have is found at the start, every one of them by its key', () => {
    expect(check(plain, { files: ['view', 'veiw'], kafka: 'like' })).toThrow(
      "2 problem(s):\n  source.files.1.mapping.action: action 'veiw' is not in the bundle; allowed: view, tag\n" +
        "  kafka.mapping.action: action 'like' is not in the bundle; allowed: view, tag",
    );
    expect(check(plain, { files: ['view+like'] })).toThrow("action 'view+like'");
  });
});
