/** `hstu-streams erase`: removes a user from a deployment and from ClickHouse, and shows that it was done. */

import { existsSync } from 'node:fs';
import { type Command, Option } from 'commander';
import type { ClickHouse } from '../../infra/clickhouse/clickhouse.ts';
import { connect } from '../../infra/clickhouse/connect.ts';
import { eraseUserRows } from '../../infra/clickhouse/user-rows.ts';
import { count } from '../../infra/console/format.ts';
import { printData } from '../../infra/console/guard-output.ts';
import { table } from '../../infra/console/table.ts';
import { kafkaClient } from '../../infra/kafka/kafka-client.ts';
import type { SourceRecord } from '../../schemas/action.ts';
import type { Config } from '../../schemas/config.ts';
import { PipelineError } from '../../schemas/errors.ts';
import { askForErasure, type ErasureParts, eraseAndWait } from '../erase/carry-out.ts';
import { type ErasurePlace, findEverywhere, readingOf } from '../erase/find-everywhere.ts';
import type { Finding } from '../erase/finding.ts';
import { loadConfig } from '../load-config.ts';
import { requireKafka } from '../require-kafka.ts';
import { onInterrupt } from './interrupt.ts';
import { collect, positiveInteger } from './options.ts';

interface Options {
  readonly config: string;
  readonly set: string[];
  readonly wait?: true;
  readonly timeout: number;
  readonly reason?: string;
  readonly verify?: true;
  readonly strict?: true;
  readonly format: 'table' | 'json';
}

/** Records' shares of the answer are said this often, ms. */
const TELL_EVERY_MS = 2_000;

export function addErase(program: Command): void {
  program
    .command('erase')
    .description(
      'erase a user: sequence, cache, changelog, published embedding, rows in ClickHouse; with --verify, look for what is left',
    )
    .argument('<user>', "the user's id")
    .requiredOption('-c, --config <file>', 'configuration, YAML')
    .option('--wait', 'until the stream has erased the user, and the sink too where there is one')
    .option('--timeout <seconds>', 'how long to wait for each of them', positiveInteger, 300)
    .option('--reason <text>', 'for the audit; stays in the erasures topic')
    .option(
      '--verify',
      'show what every place holds of the user; erases only together with --wait. Exit code 1: something is left',
    )
    .option('--strict', 'with --verify, count as left what ends by retention')
    .addOption(new Option('--format <format>', 'how to print what is found').choices(['table', 'json']).default('table'))
    .option('--set <key=value>', 'override a setting (repeatable)', collect, [])
    .action(async (userId: string, options: Options) => {
      if (userId === '') throw new PipelineError('CONFIG_INVALID', 'erase: the user is an empty text');
      const loaded = await loadConfig({ file: options.config, environment: process.env, assignments: options.set });
      const live = loaded.kafka === undefined ? undefined : requireKafka(loaded, options.config);
      const clickhouse = await existingClickHouse(loaded);
      if (live === undefined && clickhouse === undefined)
        throw new PipelineError(
          'CONFIG_INVALID',
          `${options.config}: no kafka section, and nothing at clickhouse.path: nowhere to erase from`,
        );
      const interrupt = onInterrupt(() => undefined);
      const place = { userId, live, clickhouse, signal: interrupt.signal };
      try {
        if (options.verify !== true || options.wait === true) await erase(place, options);
        if (options.verify === true) show(await findEverywhere(place, teller()), options);
      } finally {
        interrupt.dispose();
        await clickhouse?.close();
      }
    });
}

/** A server, or an embedded folder that is there: one is not made to find nothing in it. */
async function existingClickHouse({ clickhouse }: Config): Promise<ClickHouse | undefined> {
  return clickhouse.url === undefined && !existsSync(clickhouse.path) ? undefined : connect(clickhouse);
}

async function erase({ userId, live, clickhouse, signal }: ErasurePlace, { wait, timeout, reason }: Options): Promise<void> {
  const say = (text: string) => process.stderr.write(`${text}\n`);
  if (clickhouse !== undefined) {
    await eraseUserRows(clickhouse, userId, live?.kafka.applicationId);
    say(`removed from the ${live === undefined ? 'runs' : 'other runs'} in ClickHouse at ${clickhouse.where}`);
  }
  if (live === undefined) return;
  const { decoder, prepare } = await readingOf(live);
  const isOfUser = (record: SourceRecord) => {
    const result = decoder.decode(record);
    return result.ok && result.actions.some((action) => action.userId === userId);
  };
  const kafka = kafkaClient(live.kafka);
  const parts: ErasureParts = {
    kafka,
    config: live,
    userId,
    reason,
    isOfUser,
    prepare,
    clickhouse,
    say,
    timeoutMs: 1000 * timeout,
    signal,
  };
  if (wait === true) {
    await eraseAndWait(parts);
    say('erased');
    return;
  }
  const asked = await askForErasure(parts);
  say(
    `asked: ${live.kafka.topics.erasures}, all ${asked.length} partitions; \`run\` erases the user when it reads that, and the sink the rows of the run`,
  );
}

function teller(): (topic: string, records: number) => void {
  let toldMs = performance.now();
  return (topic, records) => {
    if (performance.now() - toldMs < TELL_EVERY_MS) return;
    toldMs = performance.now();
    process.stderr.write(`reading ${topic}: ${count(records)} records\n`);
  };
}

function show(findings: readonly Finding[], { format, strict }: Options): void {
  const left = findings.filter(({ leftOver, expiring }) => leftOver > 0 || (strict === true && expiring > 0));
  if (format === 'json') printData(JSON.stringify({ clean: left.length === 0, findings }, null, 2));
  else {
    console.log(
      table(
        findings.map(({ place, leftOver, expiring, later, note }) => ({
          place,
          'left over': leftOver,
          'ends by itself': expiring,
          'of a later life': later,
          note,
        })),
      ),
    );
    console.log(left.length === 0 ? 'clean: nothing is left that an erasure removes' : `LEFT in ${left.length} place(s)`);
  }
  if (left.length > 0) process.exitCode = 1;
}
