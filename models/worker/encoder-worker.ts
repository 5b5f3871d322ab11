/** A worker thread: one encoder engine behind the protocol. */
import { parentPort, workerData } from 'node:worker_threads';
import { messageOf, PipelineError } from '../../schemas/errors.ts';
import { ProviderEngine } from '../gpu/provider-engine.ts';
import type { FromWorker, ToWorker, WorkerCall, WorkerStart } from './protocol.ts';

const port = parentPort;
if (port === null) throw new Error('encoder-worker is started by spawn.ts as a worker thread');
const { bundle, options, provider, index } = (workerData as { start: WorkerStart }).start;
const disk = options.disk && { ...options.disk, onFailure: (diskFailure: string) => send({ diskFailure }) };
const engine = new ProviderEngine(bundle, { ...options, disk }, provider, (report) => send({ provider: report }));
try {
  if (index !== undefined) engine.useIndex(index);
} catch {
  // The file went while its readers lived: this thread's lists are exact.
}

/** One call at a time, in order: a later call of a user finds what the earlier one left in the cache. */
let last: Promise<unknown> = Promise.resolve();
let unanswered = 0;
port.on('message', (message: ToWorker) => {
  if (message === 'die') process.exit(1);
  unanswered += 1;
  last = last.then(() => answer(message)).then(idle);
});

/** A bit of what can wait, between calls: a call that comes meanwhile waits for that bit at most. */
async function idle(): Promise<void> {
  await new Promise(setImmediate);
  if (unanswered === 0 && (await engine.idle())) last = last.then(idle);
}

async function answer(message: WorkerCall): Promise<void> {
  let reply: FromWorker;
  try {
    reply = { id: message.id, response: await carryOut(message) };
  } catch (thrown) {
    const code = thrown instanceof PipelineError ? thrown.code : 'ENCODER_FAILED';
    reply = { id: message.id, failed: { code, message: messageOf(thrown) } };
  }
  send(reply);
  if (message.call === 'close') port!.close();
  else unanswered -= 1;
}

function send(message: FromWorker): void {
  port!.postMessage(message);
}

async function carryOut(message: WorkerCall) {
  switch (message.call) {
    case 'encode':
      return engine.encode(message.request);
    case 'encodeInBulk':
      return engine.encodeInBulk(message.request);
    case 'score':
      return engine.score(message.request);
    case 'scoreCandidates':
      return engine.scoreCandidates(message.request);
    case 'useCatalogue':
      engine.useCatalogue(message.request);
      return null;
    case 'useIndex':
      engine.useIndex(message.request);
      return null;
    case 'forget':
      return engine.forget(message.request);
    case 'cachedUsers':
      return engine.cachedUsers();
    case 'touch':
      engine.touch(message.request);
      return null;
    case 'stats':
      return engine.stats;
    case 'close':
      await engine.release();
      return null;
  }
}
