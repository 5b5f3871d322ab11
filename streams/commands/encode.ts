/** `hstu-streams encode`: users from a JSON-lines file, encoded whole or event by event. */
import { type Command, Option } from 'commander';
import { count } from '../../infra/console/format.ts';
import { requireOtherFile } from '../../infra/files/output-file.ts';
import { HstuEncoder } from '../../models/encoder.ts';
import { bundleFiles, loadBundle } from '../../models/hstu/bundle.ts';
import { LineEncoder } from '../encode-lines.ts';
import { checkInput, transformLines } from './json-lines.ts';
import { positiveInteger, wholeNumber } from './options.ts';

interface Options {
  readonly bundle: string;
  readonly input: string;
  readonly output: string;
  readonly mode: 'full' | 'incremental';
  readonly topK: number;
  readonly rows?: true;
  readonly workers: number;
}

export function addEncode(program: Command): void {
  program
    .command('encode')
    .description(
      'encode users given as JSON lines: {"userId", "events": [{"entity", "eventTimeMs", "action"?, "value"?}], "queryTimeMs"?}',
    )
    .requiredOption('--bundle <folder>', 'model bundle')
    .requiredOption('--input <file>', 'JSON lines')
    .requiredOption('--output <file>', 'JSON lines: {"userId", "embedding", "topK", "rows"?, "deadLetters"?}')
    .addOption(
      new Option('--mode <mode>', 'one encode a user, or one event at a time through the cache')
        .choices(['full', 'incremental'])
        .default('full'),
    )
    .option('--top-k <k>', 'entities to list for the embedding, nothing filtered', wholeNumber, 10)
    .option('--rows', "write every row of the user's window")
    .option('--workers <threads>', 'encoder threads', positiveInteger, 1)
    .action(async (options: Options) => {
      requireOtherFile([options.output], [options.input, ...bundleFiles(options.bundle)]);
      const bundle = await loadBundle(options.bundle);
      await checkInput(options.input);
      const encoder = new HstuEncoder(bundle, { workers: options.workers });
      try {
        const lineEncoder = new LineEncoder(bundle, encoder, {
          mode: options.mode,
          topK: options.topK,
          rows: options.rows === true,
        });
        const done = await transformLines(
          { input: options.input, output: options.output, doing: 'encoding', transform: (lines) => lineEncoder.encode(lines) },
          ({ embedding }) => embedding !== undefined,
        );
        if (done === undefined) return;
        const { users, faults } = done;
        process.stderr.write(`${count(users)} users encoded to ${options.output}, ${count(faults)} dead letters\n`);
        if (faults > 0) process.exitCode = 1;
      } finally {
        await encoder.close();
      }
    });
}
