import { readFile } from 'node:fs/promises';
import { describe, expect, it } from 'vitest';
import type { ScaleFigures } from '../../bench/scale.ts';
import { constantsOf, derive, SCALE_FILE, SCALE_PAGE, scaleSection } from '../../bench/scale-page.ts';

const measured = async (): Promise<ScaleFigures> => JSON.parse(await readFile(SCALE_FILE, 'utf8')).scale;
const saidOf = (scale: ScaleFigures, quantity: string, target?: Parameters<typeof derive>[1]): string =>
  derive(scale, target).find(([name]) => name === quantity)![2];

describe('docs/scale.md', () => {
  it('says what follows from the measured constants', async () => {
    expect(await readFile(SCALE_PAGE, 'utf8')).toContain(scaleSection(await measured()));
  });

  it('would be found stale: another constant makes another page', async () => {
    const scale = await measured();
    const page = await readFile(SCALE_PAGE, 'utf8');
    expect(page).not.toContain(scaleSection({ ...scale, storeBytes: 2 * scale.storeBytes }));
    expect(page).not.toContain(scaleSection({ ...scale, restoreSeconds: 2 * scale.restoreSeconds }));
  });
});

describe('derive', () => {
  it('gives back the two loads that its constants were made of', async () => {
    const scale = await measured();
    const { eventUs, rowUs } = constantsOf(scale);
    for (const { eventsPerSecond, rowsPerEvent } of scale.loads)
      expect(1e6 / (eventUs + rowUs * rowsPerEvent)).toBeCloseTo(eventsPerSecond, 6);
  });

  it('asks for more machines where there are more events', async () => {
    const scale = await measured();
    const machines = (eventsPerSecond: number) =>
      Number(/\d+/.exec(saidOf(scale, 'machines', { users: 1e8, eventsPerSecond, skew: 0.8 }))![0]);
    const few = machines(1e5);
    expect(machines(1e6)).toBeGreaterThan(few);
    expect(machines(2e6)).toBeGreaterThan(machines(1e6));
  });

  it('lets the store grow with the users alone', async () => {
    const scale = await measured();
    const target = { users: 1e7, eventsPerSecond: 1e6, skew: 0.8 };
    expect(saidOf(scale, 'store', target)).toBe(saidOf(scale, 'store', { ...target, eventsPerSecond: 2e6 }));
    expect(saidOf(scale, 'store', target)).not.toBe(saidOf(scale, 'store', { ...target, users: 2e7 }));
  });
});
