import { readFile } from 'node:fs/promises';
import { describe, expect, it } from 'vitest';
import { constantsOf, derive, type Measured, measured, SCALE_PAGE, scaleSection, type Target } from '../../bench/scale-page.ts';

const saidOf = (from: Measured, quantity: string, target?: Target): string =>
  derive(from, target).find(([name]) => name === quantity)![2];

describe('docs/scale.md', () => {
  it('says what follows from the measured constants', async () => {
    expect(await readFile(SCALE_PAGE, 'utf8')).toContain(scaleSection(await measured()));
  });

  it('would be found stale: another constant makes another page', async () => {
    const from = await measured();
    const page = await readFile(SCALE_PAGE, 'utf8');
    expect(page).not.toContain(scaleSection({ ...from, scale: { ...from.scale, storeBytes: 2 * from.scale.storeBytes } }));
    expect(page).not.toContain(scaleSection({ ...from, sink: { ...from.sink, rowsPerSecond: 2 * from.sink.rowsPerSecond } }));
  });
});

describe('derive', () => {
  it('gives back the two loads that its constants were made of', async () => {
    const { scale } = await measured();
    const { eventUs, rowUs } = constantsOf(scale);
    for (const { eventsPerSecond, rowsPerEvent } of scale.loads)
      expect(1e6 / (eventUs + rowUs * rowsPerEvent)).toBeCloseTo(eventsPerSecond, 6);
  });

  it('asks for more machines where there are more events', async () => {
    const from = await measured();
    const machines = (eventsPerSecond: number) =>
      Number(/\d+/.exec(saidOf(from, 'machines', { users: 1e8, eventsPerSecond, skew: 0.8 }))![0]);
    const few = machines(1e5);
    expect(machines(1e6)).toBeGreaterThan(few);
    expect(machines(2e6)).toBeGreaterThan(machines(1e6));
  });

  it('lets the store grow with the users alone', async () => {
    const from = await measured();
    const target = { users: 1e7, eventsPerSecond: 1e6, skew: 0.8 };
    expect(saidOf(from, 'store', target)).toBe(saidOf(from, 'store', { ...target, eventsPerSecond: 2e6 }));
    expect(saidOf(from, 'store', target)).not.toBe(saidOf(from, 'store', { ...target, users: 2e7 }));
  });
});
