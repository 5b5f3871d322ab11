import { Worker } from 'node:worker_threads';
import { describe, expect, it } from 'vitest';
import { WorkerHandle } from '../../../models/worker/worker-handle.ts';

const worker = (code: string) => () =>
  new Worker(`const { parentPort } = require('node:worker_threads');\n${code}`, { eval: true });
const failure = (promise: Promise<unknown>): Promise<unknown> =>
  promise.then(
    () => 'answered',
    (error: unknown) => error,
  );

describe('WorkerHandle', () => {
  it('says why its worker died, and stops restarting one that cannot start', async () => {
    let started = 0;
    const handle = new WorkerHandle('encoder worker 7', () => {
      started += 1;
      return worker("throw new Error('no such model');")();
    });
    expect(await failure(handle.call('stats', null))).toMatchObject({
      code: 'WORKER_CRASHED',
      retriable: true,
      message: 'encoder worker 7 died (no such model); its caches are gone, it restarts',
      cause: expect.objectContaining({ message: 'no such model' }),
    });
    let last: unknown;
    do last = await failure(handle.call('stats', null));
    while ((last as { code: string }).code === 'WORKER_CRASHED');
    expect(last).toMatchObject({
      code: 'ENCODER_FAILED',
      message: 'encoder worker 7 died 6 times within a minute; not restarted',
    });
    expect([started, handle.restarts]).toEqual([6, 5]);
    await handle.close();
  });

  it('gives each call its own answer, in whatever order they come', async () => {
    const handle = new WorkerHandle(
      'encoder worker 0',
      worker(`
        const held = [];
        parentPort.on('message', ({ id, call, request }) => {
          if (call === 'close') return parentPort.postMessage({ id, response: null });
          held.push({ id, response: request });
          if (held.length === 3) for (const answer of held.reverse()) parentPort.postMessage(answer);
        });`),
    );
    const answers = await Promise.all(['a', 'b', 'c'].map((userId) => handle.call('forget', userId)));
    expect(answers).toEqual(['a', 'b', 'c']);
    await handle.close();
  });

  it('passes on what its worker refuses, and an answer to nobody harms nobody', async () => {
    const handle = new WorkerHandle(
      'encoder worker 0',
      worker(`
        parentPort.on('message', ({ id }) => {
          parentPort.postMessage({ id: 999, response: null });
          parentPort.postMessage({ id, failed: { code: 'ENCODER_FAILED', message: 'because' } });
        });`),
    );
    expect(await failure(handle.call('stats', null))).toMatchObject({
      code: 'ENCODER_FAILED',
      message: 'because',
      retriable: false,
    });
    await handle.close();
  });

  it('goes on after a call failed by a dead worker has been answered by nobody else', async () => {
    const handle = new WorkerHandle(
      'encoder worker 0',
      worker(`
        parentPort.on('message', ({ id, call, request }) => {
          if (request === 'die') process.exit(3);
          parentPort.postMessage({ id, response: call === 'forget' });
        });`),
    );
    expect(await handle.call('forget', 'a')).toBe(true);
    const [dead, behind] = [failure(handle.call('forget', 'die')), failure(handle.call('forget', 'b'))];
    for (const error of [await dead, await behind])
      expect(error).toMatchObject({ code: 'WORKER_CRASHED', message: expect.stringContaining('died (exit code 3)') });
    expect(await handle.call('forget', 'c')).toBe(true);
    expect(handle.restarts).toBe(1);
    await handle.close();
  });
});
