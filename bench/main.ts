/** `npm run bench [-- NAME]`: figures of this machine, this commit; without a name, of all suites. */
import { existsSync } from 'node:fs';
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { dirname, relative } from 'node:path';
import { parseArgs } from 'node:util';

import { startProgress } from '../infra/console/progress.ts';
import { heading, table } from '../infra/console/table.ts';
import { type Baseline, type Comparison, compare, isBad, ratiosByName } from './compare.ts';
import { besideFloors } from './floors-table.ts';
import { drawPictures } from './pictures.ts';
import { drawProfile } from './profile.ts';
import { type Figures, LATEST, mergeReports, PUBLISHED, type Report, readReport } from './report.ts';
import { handOver, runSuites } from './run-suites.ts';
import { renderScalePage, SCALE_FILE } from './scale-page.ts';
import { type Suite, suites } from './suites.ts';

/** Not among all: half an hour, and no figures but those of time; minutes of building indexes. */
const ALONE = ['soak', 'catalogue'];
/** Of `scale` among all, where a million take five minutes. */
const USERS_AMONG_ALL = 100_000;
const USERS_ALONE = 1_000_000;

const { values: options, positionals } = readArguments();
const [name = 'all', ...more] = positionals;
if (more.length > 0) usage();
const suite = Object.hasOwn(suites, name) ? suites[name] : undefined;
if (suite !== undefined) await one(suite);
else if (name === 'all') await all();
else if (name === 'compare') await compareWithBaseline();
else if (name === 'profile') await drawProfile(options.publish ? PUBLISHED : dirname(LATEST));
else if (name === 'pages') await pages();
else usage();

function readArguments() {
  try {
    return parseArgs({
      allowPositionals: true,
      options: {
        json: { type: 'boolean', default: false },
        /** Of `scale`. */
        users: { type: 'string' },
        /** Of `soak`. */
        minutes: { type: 'string', default: '30' },
        /** Of `catalogue`, by commas: the index of a million takes minutes to build. */
        rows: { type: 'string', default: '10000,100000,300000' },
        /** Of `all` and `compare`: these suites only, by commas. */
        only: { type: 'string' },
        /** Of `all`, `scale` and `profile`: into docs; of `--only` some, into the report that is there. */
        publish: { type: 'boolean', default: false },
        /** Of `compare`. */
        baseline: { type: 'string', default: `${PUBLISHED}/baseline.json` },
        /** Of `compare` and `pages`: figures of this file rather than of a new run, or of those published. */
        report: { type: 'string' },
        /** Of `compare`: what was measured becomes the baseline. */
        accept: { type: 'boolean', default: false },
      },
    });
  } catch (error) {
    return usage((error as Error).message);
  }
}

function usage(problem?: string): never {
  if (problem !== undefined) process.stderr.write(`${problem}\n`);
  process.stderr.write(`usage: npm run bench [-- all] [--only NAME,NAME] [--users N] [--json] [--publish]
       npm run bench -- ${Object.keys(suites).join('|')} [--json] [scale: --users N --publish] [soak: --minutes N] [catalogue: --rows N,N]
       npm run bench -- profile [--publish]
       npm run bench -- pages [--report FILE]
       npm run bench:compare [-- --only NAME,NAME] [--report FILE] [--baseline FILE] [--accept]
`);
  process.exit(2);
}

async function one(of: Suite): Promise<void> {
  if (of.elsewhere?.() === true) return;
  const suiteOptions = {
    users: positive('users', options.users ?? USERS_ALONE),
    minutes: positive('minutes', options.minutes),
    rows: options.rows.split(',').map((count) => positive('rows', count)),
  };
  const progress = startProgress(name, of.total(suiteOptions));
  const ran = await of.run((done, label) => progress.update(done, label), suiteOptions);
  progress.stop();
  if (!handOver(ran)) console.log(options.json ? JSON.stringify(ran.json) : ran.text);
  if (name === 'scale' && options.publish) {
    await write(SCALE_FILE, ran.json);
    await renderScalePage();
  }
  if (ran.problems !== undefined && ran.problems.length > 0) process.exitCode = 1;
}

async function all(): Promise<void> {
  const names = chosen(Object.keys(suites).filter((of) => !ALONE.includes(of)));
  const report = await run(names);
  await write(LATEST, report);
  if (options.json) console.log(JSON.stringify(report));
  else {
    console.log(`${heading('Beside what bounds it')}\n${table(besideFloors(report.figures).map((row) => ({ ...row })))}`);
    console.log(`${heading('Memory')}\n${table(memoryRows(report))}`);
    console.log(`\nreport: ${relative('.', LATEST)}`);
  }
  for (const [failed, why] of Object.entries(report.failed)) process.stderr.write(`${failed}: ${why}\n`);
  if (Object.keys(report.failed).length > 0) process.exitCode = 1;
  if (!options.publish) return;
  const published = `${PUBLISHED}/report.json`;
  const some = options.only !== undefined && existsSync(published);
  await publish(some ? mergeReports(await readReport(published), report) : report);
  if (!some) await drawProfile(PUBLISHED);
}

async function run(names: readonly string[]): Promise<Report> {
  const users = positive('users', options.users ?? USERS_AMONG_ALL);
  return runSuites(names, ['--users', `${users}`], async (text, report) => {
    (options.json ? process.stderr : process.stdout).write(`${text}\n`);
    await write(LATEST, report);
  });
}

async function publish(report: Report): Promise<void> {
  await write(`${PUBLISHED}/report.json`, report);
  for (const file of await drawPictures(report, PUBLISHED)) process.stderr.write(`${relative('.', file)}\n`);
  await renderScalePage();
}

/** What is drawn and reckoned from measured files, once more. */
async function pages(): Promise<void> {
  await publish(await readReport(options.report ?? `${PUBLISHED}/report.json`));
}

async function compareWithBaseline(): Promise<void> {
  const report = options.report === undefined ? undefined : await readReport(options.report);
  const names = chosen(report === undefined ? ['encode'] : Object.keys(report.figures));
  const now = report ?? (await run(names));
  for (const [failed, why] of Object.entries(now.failed)) process.stderr.write(`${failed}: ${why}\n`);
  if (Object.keys(now.failed).length > 0) process.exitCode = 1;
  const figures = Object.fromEntries(Object.entries(now.figures).filter(([of]) => names.includes(of))) as Figures;
  if (options.accept) {
    await accept(now, figures);
    return;
  }
  const baseline = JSON.parse(await readFile(options.baseline, 'utf8')) as Baseline;
  let compared = compare(baseline, figures);
  const worse = names.filter((of) => compared.some((row) => row.verdict === 'REGRESSION' && row.figure.startsWith(`${of}:`)));
  if (report === undefined && worse.length > 0) {
    process.stderr.write(`worse than the baseline, so once more: ${worse.join(', ')}\n`);
    compared = compare(baseline, figures, (await run(worse)).figures);
  }
  console.log(options.json ? JSON.stringify(compared) : table(compared.map(shown)));
  const bad = compared.filter(isBad);
  process.stderr.write(
    `${bad.length} of ${compared.length} figures are worse than allowed; baseline of ${baseline.commit}, ${baseline.date}\n`,
  );
  if (bad.length > 0) process.exitCode = 1;
}

/** The ratios of these suites take the place of the baseline's; those of other suites stay. */
async function accept({ date, machine, commit }: Report, figures: Figures): Promise<void> {
  const before = await readFile(options.baseline, 'utf8').then(
    (text) => (JSON.parse(text) as Baseline).ratios,
    () => ({}),
  );
  const baseline: Baseline = { date, machine, commit, ratios: { ...before, ...ratiosByName(figures) } };
  await write(options.baseline, baseline);
}

function shown({ figure, baseline, now, change, threshold, verdict }: Comparison) {
  const percent = (share: number | null) => (share === null ? '' : `${share > 0 ? '+' : ''}${(100 * share).toFixed(1)} %`);
  return { figure, baseline, now, change: percent(change), threshold: percent(threshold), verdict };
}

function memoryRows({ runs }: Report) {
  return Object.entries(runs).map(([of, { peakRssBytes, kvBytes }]) => ({
    suite: of,
    'peak RSS, MiB': Math.round(peakRssBytes / 2 ** 20),
    'KV caches, MiB': Math.round(kvBytes / 2 ** 20),
  }));
}

/** The suites of `--only`, or these. */
function chosen(otherwise: readonly string[]): readonly string[] {
  if (options.only === undefined) return otherwise;
  const names = options.only.split(',');
  const unknown = names.filter((of) => !Object.hasOwn(suites, of));
  if (unknown.length > 0) usage(`--only ${unknown.join()}: no such suite`);
  return names;
}

async function write(file: string, content: object): Promise<void> {
  await mkdir(dirname(file), { recursive: true });
  await writeFile(file, `${JSON.stringify(content, null, 2)}\n`);
}

function positive(option: string, given: string | number): number {
  const value = Number(given);
  if (!(value > 0)) usage(`--${option} ${given}: must be a number above 0`);
  return value;
}
