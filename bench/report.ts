/** What one run of all suites leaves: the machine, the commit, the models, and every suite's figures as its `--json` has them. */
import { readFile } from 'node:fs/promises';
import { release } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { env } from 'onnxruntime-node';
import { loadBundle } from '../models/hstu/bundle.ts';
import type { AnalyticsFigure } from './analytics.ts';
import type { CacheFigure } from './cache.ts';
import type { CatalogueFigure } from './catalogue.ts';
import type { DiskFigure } from './disk.ts';
import type { EncodeFigure } from './encode.ts';
import type { GpuFigures } from './gpu.ts';
import type { KafkaFigures } from './kafka.ts';
import type { LoadFigures } from './load.ts';
import { commit, machine, type Usage } from './measure.ts';
import type { PeerFigures } from './peers.ts';
import type { ReplayFigure } from './replay.ts';
import type { RestoreFigures } from './restore.ts';
import type { ScaleFigures } from './scale.ts';
import type { ScalingFigure } from './scaling.ts';
import type { ScoreFigure } from './score.ts';
import type { SinkFigures } from './sink.ts';
import type { SoakFigures } from './soak.ts';
import type { WorkersFigure } from './workers.ts';

const ROOT = fileURLToPath(new URL('..', import.meta.url));
export const PUBLISHED = join(ROOT, 'docs/bench');
/** Of the last run; not kept by git. */
export const LATEST = join(ROOT, '.hstu/bench/report.json');

/** By suite. */
export interface Figures {
  readonly encode?: readonly EncodeFigure[];
  readonly scaling?: readonly ScalingFigure[];
  readonly score?: readonly ScoreFigure[];
  readonly load?: LoadFigures;
  readonly workers?: readonly WorkersFigure[];
  readonly cache?: readonly CacheFigure[];
  readonly disk?: readonly DiskFigure[];
  readonly replay?: readonly ReplayFigure[];
  readonly kafka?: KafkaFigures;
  readonly restore?: RestoreFigures;
  readonly sink?: SinkFigures;
  readonly analytics?: readonly AnalyticsFigure[];
  readonly gpu?: GpuFigures;
  readonly peers?: readonly PeerFigures[];
  readonly scale?: ScaleFigures;
  readonly catalogue?: readonly CatalogueFigure[];
  readonly soak?: SoakFigures;
}

export interface Run extends Usage {
  readonly date: string;
  readonly commit: string;
  readonly seconds: number;
}

export interface Report {
  readonly date: string;
  readonly machine: ReturnType<typeof machine> & { readonly kernel: string; readonly onnxruntime: string };
  readonly commit: string;
  /** Digests of the bundles on disk that suites measure; the others are generated from a seed. */
  readonly digests: Readonly<Record<string, string>>;
  readonly figures: Figures;
  /** By suite: one that was run anew takes the place of its older figures. */
  readonly runs: Readonly<Record<string, Run>>;
  /** Suites that ended without figures, and why. */
  readonly failed: Readonly<Record<string, string>>;
}

/** Where, when and of what: before any suite has run. */
export async function emptyReport(): Promise<Report> {
  const folder = 'examples/movielens/bundle';
  return {
    date: new Date().toISOString(),
    machine: { ...machine(), kernel: release(), onnxruntime: env.versions.node ?? env.versions.common },
    commit: commit(),
    digests: { [folder]: (await loadBundle(join(ROOT, folder))).digest },
    figures: {},
    runs: {},
    failed: {},
  };
}

/** @throws Error where the file is no report */
export async function readReport(file: string): Promise<Report> {
  const report = JSON.parse(await readFile(file, 'utf8')) as Partial<Report>;
  if (report.figures === undefined) throw new Error(`${file}: no report of \`npm run bench\`: it has no "figures"`);
  return report as Report;
}

/** The older report with what a newer one has run. */
export function mergeReports(older: Report, newer: Report): Report {
  return {
    ...newer,
    digests: { ...older.digests, ...newer.digests },
    figures: { ...older.figures, ...newer.figures },
    runs: { ...older.runs, ...newer.runs },
  };
}
