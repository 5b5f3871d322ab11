/** Where the time of the pipeline goes: the demo's events through the live operators from memory, both threads sampled, as a flame graph. */

import { mkdir, writeFile } from 'node:fs/promises';
import { type InspectorNotification, type Profiler, Session } from 'node:inspector';
import { join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import { startProgress } from '../infra/console/progress.ts';
import { HstuEncoder } from '../models/encoder.ts';
import { loadBundle } from '../models/hstu/bundle.ts';
import type { Config } from '../schemas/config.ts';
import { loadConfig } from '../streams/load-config.ts';
import { encoderOptions } from '../streams/replay.ts';
import { movielens } from '../test/support/promises/movielens.ts';
import { type Frame, flameGraph } from './flame-graph.ts';
import { fromMemory, recordsOf } from './from-memory.ts';

const ROOT = fileURLToPath(new URL('..', import.meta.url));
const EVENTS = 30_000;
const PARTITIONS = 4;
const INTERVAL_US = 500;
/** What an encoder thread is started with. */
const ENCODER_THREAD = /models\/worker\/(boot\.mjs|encoder-worker\.js)$/;

/** Runs the pipeline twice, the second time sampled, and draws `flame.svg` into the folder. */
export async function drawProfile(folder: string): Promise<void> {
  const progress = startProgress('profile', 3);
  const example = await loadConfig({ file: join(ROOT, 'examples/movielens/live.yaml') });
  // MovieLens' users act in bursts: by batch, a segment would have some fifty events, and the step would hardly be seen.
  const config: Config = { ...example, publish: 'every-event' };
  const bundle = await loadBundle(config.bundle);
  const records = recordsOf(await movielens(EVENTS), config.kafka!.topics.userActions, PARTITIONS);
  progress.update(0, 'warming up');
  const encoder = new HstuEncoder(bundle, encoderOptions(config));
  await encoder.stats();
  const sampler = await Sampler.open();
  try {
    await fromMemory({ bundle, config, records, encoder });
    for (const user of await encoder.cachedUsers()) await encoder.forget(user);
    progress.update(1, 'sampling');
    await sampler.start();
    const began = performance.now();
    await fromMemory({ bundle, config, records, encoder });
    const seconds = (performance.now() - began) / 1e3;
    const [main, worker] = await sampler.stop();
    progress.update(2, 'drawing');
    const threads = [
      { name: 'main thread', ...framesOf(main!) },
      { name: 'encoder thread', ...framesOf(worker!) },
    ];
    const busy = threads.map(({ name, busyUs }) => `${name} busy ${Math.round(busyUs / seconds / 1e4)} %`).join(', ');
    const title = `${EVENTS.toLocaleString('en-US')} events from memory, an embedding each, in ${seconds.toFixed(1)} s: ${busy}`;
    await mkdir(folder, { recursive: true });
    const file = join(folder, 'flame.svg');
    await writeFile(
      file,
      flameGraph(
        title,
        threads.map(({ name, root }) => ({ ...root, name })),
      ),
    );
    progress.update(3, relative('.', file));
  } finally {
    progress.stop();
    sampler.close();
    await encoder.close();
  }
}

/** Samples this thread and, by the inspector's messages to them, its workers. */
class Sampler {
  readonly #session: Session;
  readonly #workers: readonly string[];
  #serial = 0;

  static async open(): Promise<Sampler> {
    const session = new Session();
    session.connect();
    const workers: string[] = [];
    // Others are the source loader's.
    session.on('NodeWorker.attachedToWorker', ({ params: { sessionId, workerInfo } }) => {
      if (ENCODER_THREAD.test(workerInfo.url)) workers.push(sessionId);
    });
    await post(session, 'Profiler.enable');
    await post(session, 'Profiler.setSamplingInterval', { interval: INTERVAL_US });
    await post(session, 'NodeWorker.enable', { waitForDebuggerOnStart: false });
    const sampler = new Sampler(session, workers);
    await sampler.#ofWorkers('Profiler.enable');
    await sampler.#ofWorkers('Profiler.setSamplingInterval', { interval: INTERVAL_US });
    return sampler;
  }

  private constructor(session: Session, workers: readonly string[]) {
    this.#session = session;
    this.#workers = workers;
  }

  async start(): Promise<void> {
    await this.#ofWorkers('Profiler.start');
    await post(this.#session, 'Profiler.start');
  }

  /** This thread's first. */
  async stop(): Promise<Profiler.Profile[]> {
    const own = (await post(this.#session, 'Profiler.stop')) as { profile: Profiler.Profile };
    const others = (await this.#ofWorkers('Profiler.stop')) as { profile: Profiler.Profile }[];
    return [own, ...others].map(({ profile }) => profile);
  }

  close(): void {
    this.#session.disconnect();
  }

  #ofWorkers(method: string, params: object = {}): Promise<unknown[]> {
    return Promise.all(this.#workers.map((sessionId) => this.#ask(sessionId, method, params)));
  }

  async #ask(sessionId: string, method: string, params: object): Promise<unknown> {
    const id = ++this.#serial;
    const answered = new Promise<unknown>((resolve, reject) => {
      const listen = ({ params: got }: InspectorNotification<{ sessionId: string; message: string }>) => {
        const answer = JSON.parse(got.message) as { id?: number; result?: unknown; error?: { message: string } };
        if (got.sessionId !== sessionId || answer.id !== id) return;
        this.#session.off('NodeWorker.receivedMessageFromWorker', listen);
        if (answer.error === undefined) resolve(answer.result);
        else reject(new Error(`${method}: ${answer.error.message}`));
      };
      this.#session.on('NodeWorker.receivedMessageFromWorker', listen);
    });
    await post(this.#session, 'NodeWorker.sendMessageToWorker', { sessionId, message: JSON.stringify({ id, method, params }) });
    return answered;
  }
}

const post = (session: Session, method: string, params: object = {}): Promise<unknown> =>
  new Promise((resolve, reject) =>
    session.post(method, params, (error, result) => (error === null ? resolve(result) : reject(error))),
  );

const NOT_WORK = new Set(['(idle)', '(program)']);
/** The sampler's own. */
const HERE = 'bench/profile.ts';

/** The profile as frames, those of one package or of the runtime that call each other drawn as one. */
function framesOf({ nodes, samples, timeDeltas }: Profiler.Profile): { readonly root: Frame; readonly busyUs: number } {
  const byId = new Map(nodes.map((node) => [node.id, node]));
  const selfUs = new Map<number, number>();
  for (const [i, id] of (samples ?? []).entries()) selfUs.set(id, (selfUs.get(id) ?? 0) + (timeDeltas?.[i] ?? 0));
  const root: Frame = { name: '', us: 0, children: new Map() };
  const visit = (node: Profiler.ProfileNode, parent: Frame): void => {
    const name = nameOf(node);
    const frame = name === undefined || name === parent.name ? parent : childOf(parent, name);
    frame.us += selfUs.get(node.id) ?? 0;
    for (const child of node.children ?? []) visit(byId.get(child)!, frame);
  };
  for (const child of nodes[0]!.children ?? []) {
    const node = byId.get(child)!;
    const { functionName, url } = node.callFrame;
    if (!NOT_WORK.has(functionName) && !(url.endsWith(HERE) && functionName !== 'drawProfile')) visit(node, root);
  }
  total(root);
  return { root, busyUs: root.us };
}

function childOf(parent: Frame, name: string): Frame {
  const known = parent.children.get(name);
  if (known !== undefined) return known;
  const made: Frame = { name, us: 0, children: new Map() };
  parent.children.set(name, made);
  return made;
}

/** From self times to those of a frame with all that it calls. */
function total(frame: Frame): number {
  for (const child of frame.children.values()) frame.us += total(child);
  return frame.us;
}

/** `undefined`: drawn as part of its caller. */
function nameOf({ callFrame: { functionName, url } }: Profiler.ProfileNode): string | undefined {
  if (url.startsWith('wasm:') || functionName.startsWith('wasm-')) return 'kernel (WebAssembly)';
  if (functionName === '(garbage collector)') return 'garbage collector';
  if (url.startsWith('node:')) return 'node';
  const dependency = /node_modules\/((?:@[^/]+\/)?[^/]+)/.exec(url)?.[1];
  if (dependency !== undefined) return dependency;
  if (url === '') return undefined;
  const file = relative(ROOT, url.startsWith('file:') ? fileURLToPath(url) : url);
  return functionName === '' ? undefined : `${functionName} · ${file}`;
}
