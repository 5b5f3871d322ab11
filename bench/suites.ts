/** The suites by name: how to run one, what its `--json` is, and how a terminal shows it. */
import { table } from '../infra/console/table.ts';
import { type AnalyticsFigure, benchAnalytics } from './analytics.ts';
import { benchCache, CACHE_FIGURES, type CacheFigure } from './cache.ts';
import { benchCatalogue, type CatalogueFigure } from './catalogue.ts';
import { benchDisk, DISK_FIGURES, type DiskFigure } from './disk.ts';
import { benchEncode, ENCODE_FIGURES, type EncodeFigure } from './encode.ts';
import { benchGpu, GPU_FIGURES, type GpuFigures, measuredElsewhere } from './gpu.ts';
import { benchKafka, KAFKA_FIGURES, type KafkaFigures } from './kafka.ts';
import { benchLoad, LOAD_FIGURES, type LoadFigures } from './load.ts';
import { commit, machine } from './measure.ts';
import { benchPeers, PEERS_FIGURES, type PeerFigures } from './peers.ts';
import { benchReplay, REPLAY_FIGURES, type ReplayFigureWithMemory } from './replay.ts';
import type { Figures } from './report.ts';
import { benchRestore, RESTORE_FIGURES, type RestoreFigures } from './restore.ts';
import { benchScale, SCALE_FIGURES, type ScaleFigures } from './scale.ts';
import { benchScaling, SCALING_FIGURES, type ScalingFigure } from './scaling.ts';
import { benchScore, SCORE_FIGURES, type ScoreFigureWithCold } from './score.ts';
import { benchSink, SINK_FIGURES, type SinkFigures } from './sink.ts';
import { benchSoak, type SoakFigures } from './soak.ts';
import { benchWorkers, WORKERS_FIGURES, type WorkersFigure } from './workers.ts';

export interface SuiteOptions {
  /** Of `scale`. */
  readonly users: number;
  /** Of `soak`. */
  readonly minutes: number;
  /** Of `catalogue`. */
  readonly rows: readonly number[];
}

export type OnProgress = (done: number, label: string) => void;

export interface Suite {
  /** How much `run` reports as done at the end. */
  readonly total: (options: SuiteOptions) => number;
  readonly run: (onProgress: OnProgress, options: SuiteOptions) => Promise<Ran>;
  /** Whether another process has done it all, with what this one lacks. */
  readonly elsewhere?: () => boolean;
}

/** A suite's figures. */
export interface Ran {
  /** What `--json` prints. */
  readonly json: object;
  /** What a terminal shows. */
  readonly text: string;
  /** Thresholds that the suite itself found missed. */
  readonly problems?: readonly string[];
}

function suite<F>(
  total: number | ((options: SuiteOptions) => number),
  bench: (onProgress: OnProgress, options: SuiteOptions) => Promise<F>,
  json: (figures: F) => object,
  text: (figures: F) => string,
  problems?: (figures: F) => readonly string[],
): Suite {
  return {
    total: typeof total === 'number' ? () => total : total,
    run: async (onProgress, options) => {
      const figures = await bench(onProgress, options);
      return { json: json(figures), text: text(figures), ...(problems && { problems: problems(figures) }) };
    },
  };
}

const rows = (figures: readonly object[]): string => table(figures.map((figure) => ({ ...figure })));
const stamped = (figures: object): object => ({ machine: machine(), commit: commit(), ...figures });

const bySuite: Readonly<Record<keyof Figures, Suite>> = {
  encode: suite<EncodeFigure[]>(ENCODE_FIGURES, benchEncode, (encode) => stamped({ encode }), rows),
  scaling: suite<ScalingFigure[]>(SCALING_FIGURES, benchScaling, (scaling) => stamped({ scaling }), rows),
  score: suite<ScoreFigureWithCold[]>(
    SCORE_FIGURES,
    benchScore,
    (figures) => ({ score: figures.map(({ coldUs: _, ...figure }) => figure) }),
    scoreText,
  ),
  load: suite<LoadFigures>(
    LOAD_FIGURES,
    benchLoad,
    (load) => stamped({ load }),
    ({ capacity, loads, urgent }) =>
      [
        `${Math.round(capacity)} users a second in full batches`,
        rows(loads),
        'candidates while updates saturate',
        rows(urgent),
      ].join('\n'),
  ),
  workers: suite<WorkersFigure[]>(WORKERS_FIGURES, benchWorkers, (workers) => stamped({ workers }), rows),
  cache: suite<CacheFigure[]>(CACHE_FIGURES, benchCache, (cache) => ({ commit: commit(), cache }), rows),
  disk: suite<DiskFigure[]>(DISK_FIGURES, benchDisk, (disk) => stamped({ disk }), rows),
  replay: suite<ReplayFigureWithMemory[]>(
    REPLAY_FIGURES,
    benchReplay,
    (figures) => ({ replay: figures.map(({ peaks: _, ...figure }) => figure) }),
    replayText,
  ),
  kafka: suite<KafkaFigures>(
    KAFKA_FIGURES,
    (onProgress) => benchKafka(onProgress),
    (kafka) => ({ kafka }),
    kafkaText,
  ),
  restore: suite<RestoreFigures>(
    RESTORE_FIGURES,
    benchRestore,
    (restore) => ({ restore }),
    (figures) => rows([figures]),
  ),
  sink: suite<SinkFigures>(
    SINK_FIGURES,
    benchSink,
    (sink) => stamped({ sink }),
    (figures) => rows([figures]),
  ),
  analytics: suite<AnalyticsFigure[]>(
    24,
    (onProgress) => {
      let done = 0;
      return benchAnalytics((label) => onProgress(done++, label));
    },
    (analytics) => stamped({ analytics }),
    rows,
  ),
  gpu: {
    ...suite<GpuFigures>(
      GPU_FIGURES,
      benchGpu,
      (gpu) => stamped({ gpu }),
      ({ device, pools, shapes }) => [`device: ${device}`, rows(pools), rows(shapes)].join('\n'),
    ),
    elsewhere: measuredElsewhere,
  },
  peers: suite<PeerFigures[]>(
    PEERS_FIGURES,
    (onProgress) => benchPeers(onProgress),
    (peers) => stamped({ peers }),
    rows,
  ),
  scale: suite<ScaleFigures>(
    SCALE_FIGURES,
    (onProgress, { users }) => benchScale({ users, warmSeconds: 60, seconds: 30 }, onProgress),
    (scale) => stamped({ scale }),
    ({ loads, ...figures }) => [rows([figures]), rows(loads)].join('\n'),
  ),
  catalogue: suite<CatalogueFigure[]>(
    ({ rows: counts }) => counts.length,
    (onProgress, { rows: counts }) => benchCatalogue(counts, onProgress),
    (catalogue) => stamped({ catalogue }),
    rows,
  ),
  soak: suite<SoakFigures>(
    ({ minutes }) => minutes,
    (onProgress, { minutes }) => benchSoak(minutes, onProgress),
    (soak) => stamped({ soak }),
    (figures) => JSON.stringify(figures, null, 2),
    ({ problems }) => problems,
  ),
};

/** In the order in which `npm run bench` runs them, `catalogue` and `soak` excepted. */
export const suites: Readonly<Record<string, Suite>> = bySuite;

function scoreText(figures: readonly ScoreFigureWithCold[]): string {
  return [
    rows(figures.map((figure) => ({ ...figure, 'coldUs / cachedUs': figure.coldUs / figure.cachedUs }))),
    'fullUs: each micro-batch re-encodes the history. coldUs: the request encodes it once and leaves it in the cache.',
  ].join('\n');
}

function replayText(figures: readonly ReplayFigureWithMemory[]): string {
  return rows(
    figures.map(({ peaks, peakRssBytes, peakRssBytesSmall, ...figure }) => ({
      ...figure,
      ...Object.fromEntries(peaks.map(({ events, peakRssBytes }) => [`peak MiB, ${events} events`, peakRssBytes / 2 ** 20])),
      'peak, most / fewest events': peakRssBytes / peakRssBytesSmall,
    })),
  );
}

function kafkaText({ memory, bareConsumer, ...deliveries }: KafkaFigures): string {
  const row = (
    way: string,
    eventsPerSecond: number,
    latency: { readonly p50Ms: number; readonly p99Ms: number } | undefined,
  ) => ({
    way,
    eventsPerSecond,
    'of memory': eventsPerSecond / memory.eventsPerSecond,
    p50Ms: latency?.p50Ms ?? '',
    p99Ms: latency?.p99Ms ?? '',
  });
  return rows([
    ...Object.entries(deliveries).map(([way, figures]) => row(way, figures.eventsPerSecond, figures)),
    row('memory', memory.eventsPerSecond, undefined),
    row('bareConsumer', bareConsumer.eventsPerSecond, undefined),
  ]);
}
