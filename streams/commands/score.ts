/** `hstu-streams score`: candidates for users from a JSON-lines file, scored from their histories. */
import { type Command, Option } from 'commander';
import { count } from '../../infra/console/format.ts';
import { requireOtherFile } from '../../infra/files/output-file.ts';
import { HstuEncoder } from '../../models/encoder.ts';
import { bundleFiles } from '../../models/hstu/bundle.ts';
import { describeCatalogue, loadModel } from '../catalogue.ts';
import { LineScorer } from '../score-lines.ts';
import { checkInput, transformLines } from './json-lines.ts';
import { positiveInteger } from './options.ts';

interface Options {
  readonly bundle: string;
  readonly catalogue?: string;
  readonly input: string;
  readonly output: string;
  readonly unknownCandidates: 'hash' | 'leave-out';
  readonly seenFilter: boolean;
  readonly retrieve?: number;
  readonly workers: number;
}

export function addScore(program: Command): void {
  program
    .command('score')
    .description(
      'score candidates given as JSON lines: {"userId", "events": [{"entity", "eventTimeMs", "action"?, "value"?}], "candidates", "queryTimeMs"?, "topK"?, "deny"?}',
    )
    .requiredOption('--bundle <folder>', 'model bundle')
    .option('--catalogue <file>', 'JSON lines: entities that came, went and became popular since the model was trained')
    .requiredOption('--input <file>', 'JSON lines; without candidates, topK asks for the best of the catalogue')
    .requiredOption(
      '--output <file>',
      'JSON lines: {"userId", "candidates": [{"entity", "score", "tasks"?}], "leftOut"?, "coldStart"?, "deadLetters"?}',
    )
    .addOption(
      new Option('--unknown-candidates <how>', 'candidates outside the vocabulary: by their shared row, or left out')
        .choices(['hash', 'leave-out'])
        .default('hash'),
    )
    .option('--no-seen-filter', "list of the catalogue's best also what the user has seen")
    .option('--retrieve <m>', 'retrieved before ranking, for the best of the catalogue (default: 5 x topK)', positiveInteger)
    .option('--workers <threads>', 'encoder threads', positiveInteger, 1)
    .action(
      async ({ bundle: folder, catalogue: file, input, output, unknownCandidates, seenFilter, retrieve, workers }: Options) => {
        requireOtherFile([output], [input, ...bundleFiles(folder), ...(file === undefined ? [] : [file])]);
        const catalogue = file === undefined ? undefined : { file };
        const bundle = await loadModel({ bundle: folder, catalogue }, (report) =>
          process.stderr.write(`${describeCatalogue(report)}\n`),
        );
        await checkInput(input);
        const encoder = new HstuEncoder(bundle, { workers });
        try {
          const scorer = new LineScorer(bundle, encoder, {
            unknownCandidates,
            seenFilter,
            ...(retrieve !== undefined && { retrieve }),
          });
          const done = await transformLines(
            { input, output, doing: 'scoring', transform: (lines) => scorer.score(lines) },
            ({ candidates }) => candidates !== undefined,
          );
          if (done === undefined) return;
          const { users, faults } = done;
          process.stderr.write(`${count(users)} users scored to ${output}, ${count(faults)} dead letters\n`);
          if (faults > 0) process.exitCode = 1;
        } finally {
          await encoder.close();
        }
      },
    );
}
