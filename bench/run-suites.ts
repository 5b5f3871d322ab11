/** Suites one after the other, each in a process of its own: none inherits the heap, the threads or the files of the one before. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { duration } from '../infra/console/format.ts';
import { heading } from '../infra/console/table.ts';
import { type Usage, usage } from './measure.ts';
import { emptyReport, type Report } from './report.ts';
import type { Ran } from './suites.ts';

const MAIN = fileURLToPath(new URL('main.ts', import.meta.url));
/** Names the file in which a suite's process leaves what it found. Not `HSTU_…`: instances that it starts take those as configuration. */
const RESULT_FILE = 'BENCH_RESULT_FILE';

/** Hands what a suite found to whoever started this process, if someone waits for it. @returns whether */
export function handOver(ran: Ran): boolean {
  const file = process.env[RESULT_FILE];
  if (file === undefined) return false;
  writeFileSync(file, JSON.stringify({ ...ran, usage: usage() }));
  return true;
}

/**
 * Runs the suites in this order; one that fails is told and passed over.
 *
 * @param options of the command line, for every suite
 * @param onRan given what a terminal shows of a suite, and the report until then: a run that is broken off leaves what it has
 */
export async function runSuites(
  names: readonly string[],
  options: readonly string[],
  onRan: (text: string, report: Report) => Promise<void>,
): Promise<Report> {
  let report = await emptyReport();
  for (const [i, name] of names.entries()) {
    process.stderr.write(`${i + 1} of ${names.length}: ${name}\n`);
    const began = performance.now();
    const ran = await runSuite(name, options);
    const seconds = Math.round((performance.now() - began) / 1e3);
    if (typeof ran === 'string') report = { ...report, failed: { ...report.failed, [name]: ran } };
    else {
      report = {
        ...report,
        figures: { ...report.figures, [name]: (ran.json as Record<string, unknown>)[name] },
        runs: { ...report.runs, [name]: { date: new Date().toISOString(), commit: report.commit, seconds, ...ran.usage } },
      };
      await onRan(`${heading(`${name}, ${duration(1e3 * seconds)}`)}\n${ran.text}`, report);
    }
  }
  return report;
}

/** @returns what it found, or why it found nothing */
async function runSuite(name: string, options: readonly string[]): Promise<(Ran & { readonly usage: Usage }) | string> {
  const folder = await mkdtemp(join(tmpdir(), 'hstu-bench-'));
  const result = join(folder, 'result.json');
  try {
    const child = spawn(process.execPath, [...process.execArgv, MAIN, name, ...options], {
      env: { ...process.env, [RESULT_FILE]: result },
      stdio: ['ignore', 'inherit', 'inherit'],
    });
    const [code, signal] = (await once(child, 'exit')) as [number | null, string | null];
    if (!existsSync(result)) return `ended with ${signal ?? `exit code ${code}`}; what it said is above`;
    return JSON.parse(readFileSync(result, 'utf8')) as Ran & { readonly usage: Usage };
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}
