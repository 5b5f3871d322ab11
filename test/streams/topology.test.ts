import { describe, expect, it } from 'vitest';
import { parseConfig } from '../../schemas/config.ts';
import { mermaid, topology } from '../../streams/topology.ts';

const stepsWith = (topics: object) => topology(parseConfig({ bundle: 'b', kafka: { brokers: ['k:9092'], topics } }, 'this test'));

describe('what explain shows', () => {
  it('has the entities topic beside the step whose lists it changes, where there is one', () => {
    const steps = stepsWith({ entities: 'things' });
    expect(steps.filter(({ bounds }) => bounds.includes('catalogue by things')).map(({ id }) => id)).toEqual(['score']);
    expect(mermaid(steps)).toContain('  scoreFollows[/things/] -.-> score\n');
    expect(mermaid(stepsWith({}))).not.toContain('Follows');
  });
});
