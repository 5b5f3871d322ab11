/** `npm run bench -- NAME [--json] [--users N] [--minutes N]`: figures of this machine, this commit. */
import { parseArgs } from 'node:util';

import { startProgress } from '../infra/console/progress.ts';
import { table } from '../infra/console/table.ts';
import { benchAnalytics } from './analytics.ts';
import { benchCache, CACHE_FIGURES } from './cache.ts';
import { benchEncode } from './encode.ts';
import { benchGpu, GPU_FIGURES, measuredElsewhere } from './gpu.ts';
import { benchKafka, KAFKA_FIGURES } from './kafka.ts';
import { commit, machine } from './measure.ts';
import { benchPeers, PEERS_FIGURES } from './peers.ts';
import { benchReplay, REPLAY_FIGURES } from './replay.ts';
import { benchRestore, RESTORE_FIGURES } from './restore.ts';
import { benchScale, SCALE_FIGURES } from './scale.ts';
import { benchScore, SCORE_FIGURES } from './score.ts';
import { benchSoak } from './soak.ts';
import { benchWorkers, WORKERS_FIGURES } from './workers.ts';

/** By name: prints its figures. */
const benchmarks: Readonly<Record<string, (asJson: boolean) => Promise<void>>> = {
  encode,
  cache,
  score,
  kafka,
  restore,
  replay,
  analytics,
  gpu,
  workers,
  peers,
  scale,
  soak,
};

const { values: options, positionals } = readArguments();
const [name = 'encode'] = positionals;
const benchmark = Object.hasOwn(benchmarks, name) ? benchmarks[name] : undefined;
if (benchmark === undefined) usage();
await benchmark(options.json);

function readArguments() {
  try {
    return parseArgs({
      allowPositionals: true,
      options: {
        json: { type: 'boolean', default: false },
        /** Of `scale`. */
        users: { type: 'string', default: '1000000' },
        /** Of `soak`. */
        minutes: { type: 'string', default: '30' },
      },
    });
  } catch {
    return usage();
  }
}

function usage(): never {
  const names = Object.keys(benchmarks).join('|');
  process.stderr.write(`usage: npm run bench -- ${names} [--json] [scale: --users N] [soak: --minutes N]\n`);
  process.exit(2);
}

async function encode(asJson: boolean): Promise<void> {
  const progress = startProgress('encode', 12);
  const figures = await benchEncode((done, _total, label) => progress.update(done, label));
  progress.stop();
  if (asJson) console.log(JSON.stringify({ machine: machine(), commit: commit(), encode: figures }));
  else console.log(table(figures.map((figure) => ({ ...figure }))));
}

async function cache(asJson: boolean): Promise<void> {
  const progress = startProgress('cache', CACHE_FIGURES);
  const figures = await benchCache((done, label) => progress.update(done, label));
  progress.stop();
  if (asJson) console.log(JSON.stringify({ commit: commit(), cache: figures }));
  else console.log(table(figures.map((figure) => ({ ...figure }))));
}

async function score(asJson: boolean): Promise<void> {
  const progress = startProgress('score', SCORE_FIGURES);
  const figures = await benchScore((done, label) => progress.update(done, label));
  progress.stop();
  if (asJson) console.log(JSON.stringify({ score: figures.map(({ coldUs: _, ...figure }) => figure) }));
  else {
    console.log(table(figures.map((figure) => ({ ...figure, 'coldUs / cachedUs': figure.coldUs / figure.cachedUs }))));
    console.log(
      'fullUs: each micro-batch re-encodes the history. coldUs: the request encodes it once and leaves it in the cache.',
    );
  }
}

async function kafka(asJson: boolean): Promise<void> {
  const progress = startProgress('kafka', KAFKA_FIGURES);
  const figures = await benchKafka((done, label) => progress.update(done, label));
  progress.stop();
  if (asJson) {
    console.log(JSON.stringify({ kafka: figures }));
    return;
  }
  const { memory, bareConsumer, ...deliveries } = figures;
  console.log(
    table([
      ...Object.entries(deliveries).map(([way, { eventsPerSecond, p50Ms, p99Ms }]) => ({
        way,
        eventsPerSecond,
        'of memory': eventsPerSecond / memory.eventsPerSecond,
        p50Ms,
        p99Ms,
      })),
      { way: 'memory', ...memory, 'of memory': 1, p50Ms: '', p99Ms: '' },
      {
        way: 'bareConsumer',
        ...bareConsumer,
        'of memory': bareConsumer.eventsPerSecond / memory.eventsPerSecond,
        p50Ms: '',
        p99Ms: '',
      },
    ]),
  );
}

async function restore(asJson: boolean): Promise<void> {
  const progress = startProgress('restore', RESTORE_FIGURES);
  const figures = await benchRestore((done, label) => progress.update(done, label));
  progress.stop();
  if (asJson) console.log(JSON.stringify({ restore: figures }));
  else console.log(table([{ ...figures }]));
}

async function analytics(asJson: boolean): Promise<void> {
  const progress = startProgress('analytics', 24);
  let done = 0;
  const figures = await benchAnalytics((label) => progress.update(done++, label));
  progress.stop();
  if (asJson) console.log(JSON.stringify({ machine: machine(), commit: commit(), analytics: figures }));
  else console.log(table(figures.map((figure) => ({ ...figure }))));
}

async function replay(asJson: boolean): Promise<void> {
  const progress = startProgress('replay', REPLAY_FIGURES);
  const figures = await benchReplay((done, label) => progress.update(done, label));
  progress.stop();
  if (asJson) console.log(JSON.stringify({ replay: figures.map(({ peaks: _, ...figure }) => figure) }));
  else
    console.log(
      table(
        figures.map(({ peaks, peakRssBytes: _, ...figure }) => ({
          ...figure,
          ...Object.fromEntries(peaks.map(({ events, peakRssBytes }) => [`peak MiB, ${events} events`, peakRssBytes / 2 ** 20])),
        })),
      ),
    );
}

async function gpu(asJson: boolean): Promise<void> {
  if (measuredElsewhere()) return;
  const progress = startProgress('gpu', GPU_FIGURES);
  const figures = await benchGpu((done, label) => progress.update(done, label));
  progress.stop();
  if (asJson) console.log(JSON.stringify({ machine: machine(), commit: commit(), gpu: figures }));
  else {
    console.log(`device: ${figures.device}`);
    console.log(table(figures.pools.map((figure) => ({ ...figure }))));
    console.log(table(figures.shapes.map((figure) => ({ ...figure }))));
  }
}

async function workers(asJson: boolean): Promise<void> {
  const progress = startProgress('workers', WORKERS_FIGURES);
  const figures = await benchWorkers((done, label) => progress.update(done, label));
  progress.stop();
  if (asJson) console.log(JSON.stringify({ machine: machine(), commit: commit(), workers: figures }));
  else console.log(table(figures.map((figure) => ({ ...figure }))));
}

async function peers(asJson: boolean): Promise<void> {
  const progress = startProgress('peers', PEERS_FIGURES);
  const figures = await benchPeers((done, label) => progress.update(done, label));
  progress.stop();
  if (asJson) console.log(JSON.stringify({ machine: machine(), commit: commit(), peers: figures }));
  else console.log(table(figures.map((figure) => ({ ...figure }))));
}

async function scale(asJson: boolean): Promise<void> {
  const progress = startProgress('scale', SCALE_FIGURES);
  const users = positive('users', options.users);
  const { loads, ...figures } = await benchScale({ users, warmSeconds: 60, seconds: 30 }, (done, label) =>
    progress.update(done, label),
  );
  progress.stop();
  if (asJson) console.log(JSON.stringify({ machine: machine(), commit: commit(), scale: { ...figures, loads } }));
  else {
    console.log(table([figures]));
    console.log(table(loads.map((load) => ({ ...load }))));
  }
}

async function soak(asJson: boolean): Promise<void> {
  const minutes = positive('minutes', options.minutes);
  const progress = startProgress('soak', minutes);
  const figures = await benchSoak(minutes, (done, label) => progress.update(done, label));
  progress.stop();
  console.log(
    asJson ? JSON.stringify({ machine: machine(), commit: commit(), soak: figures }) : JSON.stringify(figures, null, 2),
  );
  if (figures.problems.length > 0) process.exitCode = 1;
}

function positive(option: string, text: string): number {
  const value = Number(text);
  if (!(value > 0)) {
    process.stderr.write(`--${option} ${text}: must be a number above 0\n`);
    process.exit(2);
  }
  return value;
}
