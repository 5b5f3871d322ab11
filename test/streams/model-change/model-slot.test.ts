import { describe, expect, it } from 'vitest';
import { ModelSlot } from '../../../streams/model-change/model-slot.ts';

describe('the place of the model', () => {
  it('is free of all before when the last of them is let go, whichever that is', async () => {
    const served: string[] = [];
    const slot = new ModelSlot('a', (model) => served.push(model));
    const first = slot.hold();
    const free: string[] = [];
    void slot.replace('b').then(() => free.push('of a'));
    // Never held: another takes its place while a is still worked with.
    void slot.replace('c').then(() => free.push('of b'));
    expect(first.replaced.aborted).toBe(true);
    const third = slot.hold();
    expect(third.model).toBe('c');
    await new Promise(setImmediate);
    expect(free).toEqual([]);
    first.letGo();
    await new Promise(setImmediate);
    expect(free).toEqual(['of a', 'of b']);
    expect(served).toEqual(['a', 'c']);
    expect(third.replaced.aborted).toBe(false);
  });
});
