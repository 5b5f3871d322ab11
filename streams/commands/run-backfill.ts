/** `hstu-streams replay --mode …`: the bulk path at a terminal, with progress, Ctrl-C and memory; and verification. */

import { setPriority } from 'node:os';
import { connect } from '../../infra/clickhouse/connect.ts';
import { count, duration, mebibytes, scientific } from '../../infra/console/format.ts';
import { watchMemory } from '../../infra/console/memory.ts';
import { printable } from '../../infra/console/printable.ts';
import { type Progress, startProgress } from '../../infra/console/progress.ts';
import { facts, heading, table } from '../../infra/console/table.ts';
import { type Bundle, loadBundle } from '../../models/hstu/bundle.ts';
import type { Config } from '../../schemas/config.ts';
import { PipelineError } from '../../schemas/errors.ts';
import { describeCatalogue, loadModel } from '../catalogue.ts';
import { backfill, verifyStored } from '../replay/backfill.ts';
import type { RunPlace } from '../replay/backfill-output.ts';
import type { BackfillProgress } from '../replay/backfill-parts.ts';
import { deadLetterBackfill } from '../replay/dead-letter-source.ts';
import { estimate } from '../replay/estimate.ts';
import { openOutput } from '../replay/open-output.ts';
import { parseBounds } from '../replay/parse-bounds.ts';
import { isNothingButRefused } from '../replay/refusals.ts';
import type { SortedSource } from '../replay/sort-source.ts';
import { type BackfillSource, fileBackfill, joinedBackfill, kafkaBackfill } from '../replay/source.ts';
import { storedInRun, storedInTopic } from '../replay/stored.ts';
import { storedLettersBackfill } from '../replay/stored-letters.ts';
import { isVerified, type Verification } from '../replay/verify.ts';
import { requireKafka } from '../require-kafka.ts';
import { INTERRUPTED, onInterrupt } from './interrupt.ts';

export const MODES = ['state', 'every-event', 'as-of', 'verify'] as const;

/** `files`: all of the section `source`. */
export const SOURCES = ['files', 'kafka', 'files-then-kafka', 'dead-letters'] as const;

/** A backfill lets whatever else wants the processors go first: live is not starved by one beside it. */
const NICE = 10;

export interface BackfillFlags {
  readonly mode: (typeof MODES)[number];
  readonly asOf?: string;
  readonly from?: (typeof SOURCES)[number];
  readonly offsets?: string;
  readonly since?: string;
  readonly until?: string;
  readonly against?: string;
  readonly lettersOf?: string;
  readonly to?: RunPlace;
  readonly nice?: number;
  readonly ranks?: true;
  readonly fresh?: true;
  readonly dryRun?: true;
  readonly maxRate?: number;
  readonly parallel?: number;
  readonly memory?: number;
}

/** What both kinds of run are given. */
interface Common {
  readonly config: Config;
  readonly bundle: Bundle;
  readonly source: BackfillSource;
  readonly memoryBytes?: number;
  readonly parallel?: number | undefined;
  readonly signal: AbortSignal;
  readonly onProgress: (progress: BackfillProgress) => void;
}

/** Runs to the end and prints what came of it. Sets the exit code: 1 where verification fails, 130 where interrupted. */
export async function runBackfill(config: Config, flags: BackfillFlags): Promise<void> {
  const asOfMs = flags.asOf === undefined ? undefined : timeOf('--as-of', flags.asOf);
  if ((flags.mode === 'as-of') !== (asOfMs !== undefined))
    throw new PipelineError('CONFIG_INVALID', '--as-of TIME belongs to --mode as-of, which needs it');
  const nice = flags.nice ?? NICE;
  if (nice > 19) throw new PipelineError('CONFIG_INVALID', `--nice ${nice}: expected 0 to 19`);
  setPriority(nice);
  const memory = watchMemory();
  const interrupt = onInterrupt(() =>
    process.stderr.write('\nstopping: finishing what was read (Ctrl-C again to end at once)\n'),
  );
  const bars = new Bars(flags.mode === 'verify' ? 'verifying' : 'encoding');
  const common: Common = {
    config,
    // Embeddings have nothing of the catalogue, and lists are of what it says.
    bundle: flags.ranks
      ? await loadModel(config, (report) => process.stderr.write(`${describeCatalogue(report)}\n`))
      : await loadBundle(config.bundle),
    source: sourceOf(config, flags),
    ...(flags.memory !== undefined && { memoryBytes: flags.memory * 2 ** 20 }),
    parallel: flags.parallel,
    signal: interrupt.signal,
    onProgress: (progress) => bars.show(progress),
  };
  try {
    if (flags.mode === 'verify') await verifyAndReport(common, flags, bars);
    else if (flags.dryRun) await estimateAndReport(common, { ...flags, mode: flags.mode }, asOfMs, bars);
    else await backfillAndReport(common, { ...flags, mode: flags.mode }, asOfMs, bars);
    console.log(facts([['peak memory', mebibytes(memory.peakRssBytes)]]));
  } catch (thrown) {
    // Interrupted while it was reading: nothing was begun.
    if (!interrupt.signal.aborted || !(thrown instanceof DOMException)) throw thrown;
    process.exitCode = INTERRUPTED;
  } finally {
    bars.stop();
    interrupt.dispose();
    memory.stop();
  }
}

async function backfillAndReport(
  common: Common,
  flags: BackfillFlags & { readonly mode: Exclude<BackfillFlags['mode'], 'verify'> },
  asOfMs: number | undefined,
  bars: Bars,
): Promise<void> {
  const output = await openOutput(common.config, flags.to);
  try {
    const { mode, ranks, fresh, maxRate } = flags;
    const result = await backfill({ ...common, output, mode, asOfMs, ranks, fresh, maxRate });
    bars.stop();
    const done = result.position - result.start;
    console.log(heading(`Run ${result.runId}`));
    console.log(
      facts([
        ['records', `${recordsText(result)}; sorted in ${duration(result.sortMs)}`],
        [
          'events now',
          `${count(done)} in ${duration(result.encodeMs)} (${count((1000 * done) / Math.max(1, result.encodeMs))}/s)`,
        ],
        ['embeddings', count(result.embeddings)],
        ['stored in', `${output.place}: ${output.where}`],
      ]),
    );
    const rows = await output.count(result.runId);
    if (rows !== undefined) console.log(table([rows]));
    showRefused(result.events, result);
    if (!result.interrupted) return;
    console.log(
      `stopped after ${count(result.position)} of ${count(result.events)} events; what was done is committed. The same command goes on from there.`,
    );
    process.exitCode = INTERRUPTED;
  } finally {
    await output.close();
  }
}

async function estimateAndReport(
  common: Common,
  { mode, ranks }: BackfillFlags & { readonly mode: Exclude<BackfillFlags['mode'], 'verify'> },
  asOfMs: number | undefined,
  bars: Bars,
): Promise<void> {
  const result = await estimate({ ...common, mode, asOfMs, ranks });
  bars.stop();
  console.log(heading('Dry run: nothing was stored'));
  console.log(
    facts([
      ['records', recordsText(result)],
      ['sorting', `${duration(result.sortMs)}, ${mebibytes(result.sortBytes)} on disk`],
      ['encoding, about', `${duration(result.encodeMs)} for ${count(result.events)} events, storing not included`],
      ['embeddings, about', `${count(result.embeddings)}, ${mebibytes(result.embeddingBytes)} before compression`],
    ]),
  );
  showRefused(result.events, result);
}

const recordsText = ({ records, refusals, ignored }: Pick<SortedSource, 'records' | 'refusals' | 'ignored'>): string =>
  `${count(records)}, ${count(refusals.count)} of them dead letters${ignored === 0 ? '' : `, ${count(ignored)} ignored`}`;

/** Codes with an example each. Sets the exit code 1 where nothing else came of the source. */
function showRefused(events: number, { refusals, invalid }: Pick<SortedSource, 'refusals' | 'invalid'>): void {
  if (refusals.count > 0)
    console.log(
      `${heading('Dead letters')}\n${table(refusals.list.map((one) => ({ ...one, count: count(one.count), example: printable(one.example.slice(0, 200)) })))}`,
    );
  if (invalid.size > 0)
    console.log(`left out of their actions: ${[...invalid].map(([field, times]) => `${field} ${count(times)}`).join(', ')}`);
  if (!isNothingButRefused(events, refusals)) return;
  process.stderr.write(
    'none of the records could be used: see the dead letters for the mapping, the unit of times, and the model\n',
  );
  process.exitCode = 1;
}

async function verifyAndReport(common: Common, { against }: BackfillFlags, bars: Bars): Promise<void> {
  const { config } = common;
  if (against === undefined)
    throw new PipelineError('CONFIG_INVALID', '--against: missing; a run id, or kafka for the topic of embeddings');
  const everyVersion = config.publish === 'every-event';
  if (against === 'kafka') {
    const stored = await storedInTopic(requireKafka(config, '--against kafka'), common.signal);
    return report(await verifyStored({ ...common, stored, everyVersion }), bars);
  }
  const clickhouse = await connect(config.clickhouse);
  try {
    // Of a backfill of states only the ends are stored.
    const all = everyVersion && !/^(state|as-of|every-event)-/.test(against);
    return report(await verifyStored({ ...common, stored: storedInRun(clickhouse, against), everyVersion: all }), bars);
  } finally {
    await clickhouse.close();
  }
}

function report(result: Verification, bars: Bars): void {
  bars.stop();
  const ok = isVerified(result);
  console.log(heading(ok ? 'Verified' : 'NOT verified'));
  console.log(
    facts([
      ['users', count(result.users)],
      ['embeddings compared', count(result.compared)],
      ['max |Δ|', scientific(result.maxDelta)],
      ['missing', count(result.missingCount)],
      ['extra', count(result.extraCount)],
      ['mismatches', count(result.mismatchCount)],
    ]),
  );
  if (result.missing.length > 0) console.log(`${heading('Missing (user/version)')}\n${result.missing.map(printable).join('\n')}`);
  if (result.extra.length > 0) console.log(`${heading('Extra (user/version)')}\n${result.extra.map(printable).join('\n')}`);
  if (result.mismatches.length > 0)
    console.log(`${heading('Mismatches')}\n${table(result.mismatches.map((mismatch) => ({ ...mismatch })))}`);
  if (!ok) process.exitCode = 1;
}

/** Those that are bounded by offsets and times. */
const LOGS = { kafka: kafkaBackfill, 'files-then-kafka': joinedBackfill, 'dead-letters': deadLetterBackfill } as const;

function sourceOf(config: Config, { from, lettersOf, offsets, since, until }: BackfillFlags): BackfillSource {
  const source = from ?? (config.source === undefined ? 'kafka' : 'files');
  if (lettersOf !== undefined && source !== 'dead-letters')
    throw new PipelineError('CONFIG_INVALID', '--letters-of: only with --from dead-letters');
  if (source === 'files' || lettersOf !== undefined) {
    if (offsets !== undefined || since !== undefined || until !== undefined)
      throw new PipelineError(
        'CONFIG_INVALID',
        `--offsets, --since and --until are of topics: --from ${Object.keys(LOGS).join(', ')}`,
      );
    return lettersOf === undefined ? fileBackfill(config) : storedLettersBackfill(config, lettersOf);
  }
  const times = {
    fromTimeMs: since === undefined ? undefined : timeOf('--since', since),
    toTimeMs: until === undefined ? undefined : timeOf('--until', until),
  };
  const bounds = parseBounds(offsets);
  return LOGS[source](config, (partition) => ({ ...times, ...bounds.get(partition) }));
}

function timeOf(flag: string, text: string): number {
  const timeMs = /^\d+$/.test(text) ? Number(text) : Date.parse(text);
  if (Number.isFinite(timeMs)) return timeMs;
  throw new PipelineError(
    'CONFIG_INVALID',
    `${flag} ${text}: expected ms since the epoch, or a time such as 2024-05-01T00:00:00Z`,
  );
}

/** One bar a phase. */
class Bars {
  readonly #label: string;
  #phase: BackfillProgress['phase'] | undefined;
  #bar: Progress | undefined;

  constructor(label: string) {
    this.#label = label;
  }

  show({ phase, done, start = 0, total, embeddings }: BackfillProgress): void {
    if (phase !== this.#phase) {
      this.stop();
      this.#phase = phase;
      this.#bar = total === undefined ? undefined : startProgress(this.#label, total, start);
    }
    if (total === undefined)
      process.stderr.write(
        `${process.stderr.isTTY ? '\r' : ''}sorting: ${count(done)} records${process.stderr.isTTY ? '' : '\n'}`,
      );
    else {
      const made = embeddings === 0 ? '' : `${count(embeddings)} embeddings, `;
      this.#bar?.update(done, `${count(total - done)} to go, ${made}memory ${mebibytes(process.memoryUsage.rss())}`);
    }
  }

  stop(): void {
    this.#bar?.stop();
    this.#bar = undefined;
  }
}
