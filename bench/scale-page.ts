/**
 * From what `bench scale` measured on one machine to a cluster: the arithmetic of docs/scale.md, so that the page is computed and
 * not copied. What was measured and what is only said of a cloud's machines is told apart.
 */
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { lruHitRatio, UTILISATION } from '../streams/plan.ts';
import { PUBLISHED, readReport } from './report.ts';
import type { ScaleFigures } from './scale.ts';
import type { SinkFigures } from './sink.ts';

export const SCALE_FILE = join(PUBLISHED, 'scale.json');
export const SCALE_PAGE = join(PUBLISHED, '../scale.md');
const BEGIN = '<!-- computed from docs/bench: npm run bench -- pages -->';
const END = '<!-- end of what is computed -->';

export interface Target {
  readonly users: number;
  readonly eventsPerSecond: number;
  /** As `plan` has it: the k-th most active user has a share of `k^-skew`. */
  readonly skew: number;
}

/** What the page is computed from. */
export interface Measured {
  readonly scale: ScaleFigures;
  readonly sink: SinkFigures;
}

const TARGET: Target = { users: 100e6, eventsPerSecond: 1e6, skew: 0.8 };

/** Amazon's r7a.8xlarge and i4i.8xlarge, as its pages describe them. Not measured. */
const MACHINE = { cores: 32, memoryGB: 256, kvGB: 160 };
const BROKER = { gigabitsPerSecond: 18.75, utilisation: 0.5, replicas: 3 };
/** Cores of a process: as it was measured, a main thread and an encoder thread. */
const CORES_A_PROCESS = 2;
/** Of the model that `bench scale` serves: D 64, 2 layers, window of 200 that slides by 50. */
const SLIDE = { rows: 150, everyEvents: 50 };
/** Bytes of an action on the wire: assumed. */
const ACTION_BYTES = 100;
const PARTITIONS_A_PROCESS = 2;
const BATCH_EVENTS = 512;
const SESSION_TIMEOUT_S = { default: 30, least: 6 };

export interface Derived {
  readonly eventUs: number;
  readonly rowUs: number;
  readonly rowsAMiss: number;
  readonly kvBytesAUser: number;
  readonly machines: number;
  readonly hitRatio: number;
}

/**
 * An event's time by two loads of different hit ratios: `1 / eventsPerSecond = eventUs + rowUs · rowsPerEvent`.
 *
 * @throws Error where the file has not the two loads
 */
export function constantsOf({ loads }: ScaleFigures): Pick<Derived, 'eventUs' | 'rowUs' | 'rowsAMiss' | 'kvBytesAUser'> {
  const [one, other] = loads;
  if (one === undefined || other === undefined) throw new Error('two loads are needed');
  const us = ({ eventsPerSecond }: typeof one) => 1e6 / eventsPerSecond;
  const rowUs = (us(other) - us(one)) / (other.rowsPerEvent - one.rowsPerEvent);
  return {
    rowUs,
    eventUs: us(one) - rowUs * one.rowsPerEvent,
    rowsAMiss: other.rowsPerEvent / other.coldRatio,
    kvBytesAUser: other.kvBytes / other.kvUsers,
  };
}

type Line = readonly [quantity: string, arithmetic: string, value: string];

/** The cluster, line by line. */
export function derive({ scale, sink }: Measured, { users, eventsPerSecond, skew }: Target = TARGET): readonly Line[] {
  const { eventUs, rowUs, rowsAMiss, kvBytesAUser } = constantsOf(scale);
  const processesAMachine = MACHINE.cores / CORES_A_PROCESS;
  const hitRatioOf = (machines: number) => lruHitRatio(users, Math.floor((machines * MACHINE.kvGB * 1e9) / kvBytesAUser), skew);
  const rowsOf = (hitRatio: number) => 2 + SLIDE.rows / SLIDE.everyEvents + (1 - hitRatio) * rowsAMiss;
  const usOf = (hitRatio: number) => eventUs + rowUs * rowsOf(hitRatio);
  const rateOf = (hitRatio: number) => 1e6 / usOf(hitRatio);
  const carries = (machines: number) => machines * processesAMachine * UTILISATION * rateOf(hitRatioOf(machines));
  let machines = 1;
  while (carries(machines) < eventsPerSecond) machines++;
  const hitRatio = hitRatioOf(machines);
  const processes = machines * processesAMachine;
  const recordsAUser = scale.restoredRecords / scale.users;
  const recordsPerSecond = scale.restoredRecords / scale.restoreSeconds;
  const recordBytes = scale.changelogBytes / scale.restoredRecords;
  const recordsAProcess = (users / processes) * recordsAUser;
  const partitions = processes * PARTITIONS_A_PROCESS;
  const bytesAnEvent = ACTION_BYTES + sink.recordBytes + recordBytes;
  const brokerIn = eventsPerSecond * bytesAnEvent * BROKER.replicas;
  const brokerBytes = (BROKER.gigabitsPerSecond / 8) * 1e9 * BROKER.utilisation;
  const whole = (value: number) => Math.round(value).toLocaleString('en-US');
  const short = (value: number) => Number(value.toPrecision(3)).toLocaleString('en-US', { maximumFractionDigits: 6 });
  const percent = (share: number) => `${short(100 * share)} %`;
  const GB = (bytes: number) => `${short(bytes / 1e9)} GB`;
  return [
    ['store', `${whole(users)} users × ${whole(scale.storeBytes / scale.users)} B`, GB((users * scale.storeBytes) / scale.users)],
    [
      'changelog, one replica',
      `${whole(users)} users × ${whole(scale.changelogBytes / scale.users)} B`,
      GB((users * scale.changelogBytes) / scale.users),
    ],
    ['K and V of all users', `${whole(users)} × ${whole(kvBytesAUser)} B`, GB(users * kvBytesAUser)],
    [
      'machines',
      `the fewest that carry ${whole(eventsPerSecond)} events/s by the lines below`,
      `**${machines}**, ${processes} processes`,
    ],
    [
      'users in the KV caches',
      `${machines} × ${MACHINE.kvGB} GB / ${whole(kvBytesAUser)} B`,
      `${short((machines * MACHINE.kvGB * 1e3) / kvBytesAUser)} million, ${percent((machines * MACHINE.kvGB * 1e9) / kvBytesAUser / users)}`,
    ],
    ['events that find their rows', `Che's approximation, skew ${skew} (\`plan\`)`, percent(hitRatio)],
    [
      'rows an event',
      `2 + ${SLIDE.rows}/${SLIDE.everyEvents} for slides + ${short(1 - hitRatio)} × ${short(rowsAMiss)}`,
      short(rowsOf(hitRatio)),
    ],
    ['time an event', `${short(eventUs)} µs + ${short(rowsOf(hitRatio))} × ${short(rowUs)} µs`, `${whole(usOf(hitRatio))} µs`],
    [
      'events/s a process',
      `${UTILISATION} × 1 s / ${whole(usOf(hitRatio))} µs`,
      `${whole(UTILISATION * rateOf(hitRatio))}, ${whole((UTILISATION * rateOf(hitRatio)) / CORES_A_PROCESS)} a core`,
    ],
    [
      'K and V read, a machine',
      `${whole(eventsPerSecond / machines)} events/s × ${short(hitRatio)} × ${whole(kvBytesAUser)} B`,
      `${GB((eventsPerSecond / machines) * hitRatio * kvBytesAUser)}/s`,
    ],
    ['partitions', `${processes} processes × ${PARTITIONS_A_PROCESS}`, `${partitions}`],
    [
      'transactions, at least',
      `${whole(eventsPerSecond)} / ${BATCH_EVENTS} events`,
      `${whole(eventsPerSecond / BATCH_EVENTS)}/s, ${short(eventsPerSecond / BATCH_EVENTS / partitions)} a partition`,
    ],
    [
      'bytes an event to the brokers',
      `${ACTION_BYTES} action + ${sink.recordBytes} embedding + ${whole(recordBytes)} changelog`,
      `${whole(bytesAnEvent)} B`,
    ],
    [
      'into the brokers',
      `${whole(eventsPerSecond)} × ${whole(bytesAnEvent)} B × ${BROKER.replicas} replicas`,
      `${GB(brokerIn)}/s`,
    ],
    [
      'brokers, by network',
      `${short(brokerIn / 1e9)} / (${BROKER.gigabitsPerSecond} Gbit/s × ${BROKER.utilisation})`,
      `${Math.max(Math.ceil(brokerIn / brokerBytes), BROKER.replicas + 1)}: ${Math.ceil(brokerIn / brokerBytes)} by network, and one may be lost`,
    ],
    [
      'embeddings into ClickHouse, if all are stored',
      `${whole(eventsPerSecond)} rows/s / ${whole(sink.rowsPerSecond)} a sink process`,
      `${whole(Math.ceil(eventsPerSecond / sink.rowsPerSecond))} sinks, ${GB(eventsPerSecond * sink.recordBytes)}/s`,
    ],
    [
      'a process dies, one takes over all it had',
      `${whole(recordsAProcess)} records / ${whole(recordsPerSecond)} a second`,
      `${short(recordsAProcess / recordsPerSecond)} s, after ${SESSION_TIMEOUT_S.least} to ${SESSION_TIMEOUT_S.default} s of session timeout`,
    ],
    [
      'a machine dies, the others share it',
      `${processesAMachine} × ${whole(recordsAProcess)} records / ${processes - processesAMachine} processes / ${whole(recordsPerSecond)} a second`,
      `${short((processesAMachine * recordsAProcess) / (processes - processesAMachine) / recordsPerSecond)} s, after the same`,
    ],
    [
      'what then is left to carry',
      `${machines - 1} machines, its share of the cached rows gone`,
      `${whole((machines - 1) * processesAMachine * rateOf((hitRatio * (machines - 1)) / machines))} events/s at full load`,
    ],
    [
      'all begin with empty caches',
      `${processes} / (${short(eventUs)} µs + ${short(rowsOf(0))} × ${short(rowUs)} µs)`,
      `${whole(processes * rateOf(0))} events/s at full load`,
    ],
  ];
}

/** What the model of the page foretells for the run that its constants are of, and what was seen. */
function checked({ loads }: ScaleFigures): string {
  const rows = loads.map(
    ({ skew, foretoldHitRatio, coldRatio, hitRatio, eventsPerSecond }) =>
      `| ${skew} | ${foretoldHitRatio.toFixed(3)} | ${(1 - coldRatio).toFixed(3)} | ${hitRatio.toFixed(3)} | ${Math.round(eventsPerSecond).toLocaleString('en-US')} |`,
  );
  return [
    '| skew | in the cache, foretold | not cold, seen | nothing to re-encode, seen | events/s |',
    '| ---: | ---: | ---: | ---: | ---: |',
    ...rows,
  ].join('\n');
}

/** The part of the page that is computed. */
export function scaleSection({ scale, sink }: Measured): string {
  const { eventUs, rowUs, rowsAMiss, kvBytesAUser } = constantsOf(scale);
  const constants = [
    ['users, events', `${scale.users.toLocaleString('en-US')}, ${scale.events.toLocaleString('en-US')}`],
    ['store, a user', `${Math.round(scale.storeBytes / scale.users)} B`],
    [
      'changelog, a user',
      `${Math.round(scale.changelogBytes / scale.users)} B in ${(scale.restoredRecords / scale.users).toFixed(2)} records`,
    ],
    [
      'restore',
      `${Math.round(scale.restoredRecords / scale.restoreSeconds).toLocaleString('en-US')} records/s, ${scale.restoreSeconds.toFixed(1)} s in all`,
    ],
    ['restart with its store', `${scale.restartSeconds.toFixed(1)} s`],
    ['an event, whatever it encodes', `${eventUs.toFixed(0)} µs`],
    ['a row encoded', `${rowUs.toFixed(2)} µs`],
    ['rows encoded for an event that finds none', rowsAMiss.toFixed(0)],
    ['K and V of a user in the cache', `${Math.round(kvBytesAUser).toLocaleString('en-US')} B`],
    ['embeddings stored by a sink', `${Math.round(sink.rowsPerSecond).toLocaleString('en-US')} rows/s of ${sink.recordBytes} B`],
    ['commit, median', `${scale.loads[0]!.commitP50Ms.toFixed(0)} ms`],
  ];
  return [
    BEGIN,
    '',
    '## Measured',
    '',
    '| constant | |',
    '| --- | ---: |',
    ...constants.map(([name, value]) => `| ${name} | ${value} |`),
    '',
    checked(scale),
    '',
    '## Carried over',
    '',
    '| quantity | arithmetic | |',
    '| --- | --- | ---: |',
    ...derive({ scale, sink }).map((line) => `| ${line.join(' | ')} |`),
    '',
    END,
  ].join('\n');
}

/** @throws Error where the report has no figures of `sink` */
export async function measured(): Promise<Measured> {
  const { scale } = JSON.parse(await readFile(SCALE_FILE, 'utf8')) as { readonly scale: ScaleFigures };
  const { sink } = (await readReport(join(PUBLISHED, 'report.json'))).figures;
  if (sink === undefined) throw new Error('docs/bench/report.json has no figures of the suite sink');
  return { scale, sink };
}

/** Puts what is computed from the measured files into the page. */
export async function renderScalePage(): Promise<void> {
  const page = await readFile(SCALE_PAGE, 'utf8');
  const [begin, end] = [page.indexOf(BEGIN), page.indexOf(END)];
  if (begin < 0 || end < begin) throw new Error(`${SCALE_PAGE}: the marks of the computed part are gone`);
  await writeFile(SCALE_PAGE, page.slice(0, begin) + scaleSection(await measured()) + page.slice(end + END.length));
}
