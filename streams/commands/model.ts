/** `hstu-streams model`: look into bundles, and make them from checkpoints. */
import { readFile } from 'node:fs/promises';
import { basename, resolve } from 'node:path';
import type { Command } from 'commander';
import { count, mebibytes } from '../../infra/console/format.ts';
import { printData } from '../../infra/console/guard-output.ts';
import { facts, heading, table } from '../../infra/console/table.ts';
import { requireOtherFile } from '../../infra/files/output-file.ts';
import { type Bundle, bundleFiles, kvBytesPerRow, loadBundle, writeBundle } from '../../models/hstu/bundle.ts';
import { judgeCacheability } from '../../models/hstu/cacheability.ts';
import { expectedTensors } from '../../models/hstu/expected-tensors.ts';
import { importResearch } from '../../models/hstu/import-research.ts';
import { importStu } from '../../models/hstu/import-stu.ts';
import { readSafetensors, type TensorMap } from '../../models/hstu/safetensors.ts';
import { servesRetrieval } from '../../schemas/bundle-config.ts';
import { messageOf, PipelineError } from '../../schemas/errors.ts';
import { addAddContent } from './model-add-content.ts';
import { addModelSwitch } from './model-switch.ts';

export function addModel(program: Command): void {
  const model = program.command('model').description('inspect and import model bundles, and change the one that is served');
  model
    .command('inspect')
    .description('shapes, cacheability verdict, digest, and what a user costs')
    .argument('<folder>', 'model bundle')
    .option('--json', 'print JSON')
    .action(async (folder: string, options: { json?: true }) => {
      const bundle = await loadBundle(folder);
      if (options.json) printData(JSON.stringify(inspect(bundle), null, 2));
      else console.log(describe(bundle));
    });
  addModelSwitch(model);
  addAddContent(model);
  const imports = model.command('import').description('turn a checkpoint into a bundle');
  addImport(imports.command('research'), importResearch).description(
    "from Meta's research code: its state dict as safetensors, its configuration as JSON",
  );
  addImport(imports.command('stu'), importStu).description(
    "from the STU stack of Meta's ranking models: its state dict as safetensors, its configuration as JSON",
  );
}

function addImport(command: Command, importBundle: (tensors: TensorMap, config: unknown, name: string) => Bundle): Command {
  return command
    .requiredOption('--weights <file>', 'state dict, safetensors')
    .requiredOption('--config <file>', 'configuration, JSON: the object itself, or a file that holds it under "config"')
    .requiredOption('--out <folder>', 'folder of the new bundle')
    .option('--name <name>', 'name of the model; default: that of the folder')
    .action(async (options: { weights: string; config: string; out: string; name?: string }) => {
      requireOtherFile(bundleFiles(options.out), [options.weights, options.config]);
      const [weights, configText] = await Promise.all([readInput(options.weights), readInput(options.config)]);
      const config = parseJson(configText.toString('utf8'), options.config);
      const name = options.name ?? basename(resolve(options.out));
      await writeBundle(options.out, importBundle(readSafetensors(weights, options.weights), config['config'] ?? config, name));
      console.log(describe(await loadBundle(options.out)));
    });
}

/** What `model inspect --json` prints. */
function inspect(bundle: Bundle) {
  const { config, digest } = bundle;
  return {
    name: config.name,
    architecture: config.architecture,
    digest,
    ...judgeCacheability(config),
    kvBytesPerUser: config.window.maxLength * kvBytesPerRow(config),
    kvBytesPerEvent: kvBytesPerRow(config),
    parameters: [...bundle.tensors.values()].reduce((sum, tensor) => sum + tensor.data.length, 0),
    config: { ...config, timeBucketThresholds: `${config.timeBucketThresholds.length} entries`, training: undefined },
    tensors: Object.fromEntries([...expectedTensors(config)].map(([name, shape]) => [name, shape])),
  };
}

function describe(bundle: Bundle): string {
  const { name, digest, verdict, reasons, kvBytesPerUser, kvBytesPerEvent, parameters, config, tensors } = inspect(bundle);
  const norm = { l2: 'L2', layernorm: 'LayerNorm', none: 'not normalised' }[config.outputNorm];
  return [
    heading(`${name} (${config.architecture})`),
    facts([
      ['digest', digest],
      ['cacheability', `${verdict}: ${reasons.join('; ')}`],
      ['shape', `D ${config.dimension}, ${config.layers} layers, ${config.heads} heads, dqk ${config.dqk}, dv ${config.dv}`],
      ['biases', [config.timeBias && 'time', config.positionBias && 'position'].filter(Boolean).join(' + ') || 'none'],
      ['output', `${norm}${config.concatUa ? ', concat_ua' : ''}`],
      ...(config.stu === undefined ? [] : [['STU', describeStu(config.stu)] as const]),
      ['serves', describeUses(config)],
      ['vocabulary', describeVocabulary(config)],
      ...(config.tokens === undefined ? [] : [['tokens', describeTokens(config.tokens)] as const]),
      [
        'window',
        `${config.window.maxLength} events, dropped in blocks of ${config.window.blockLength}; padded length N ${config.paddedLength}`,
      ],
      ['KV a user', `${mebibytes(kvBytesPerUser)} full (${count(kvBytesPerUser)} bytes; ${count(kvBytesPerEvent)} an event)`],
      ['parameters', count(parameters)],
    ]),
    table(Object.entries(tensors).map(([tensor, shape]) => ({ tensor, shape: shape.join(' × ') }))),
  ].join('\n');
}

const describeStu = ({ divisor, alpha, groupNorm, maxAttnLen }: NonNullable<Bundle['config']['stu']>): string =>
  [
    `divisor ${divisor}`,
    `alpha ${Number(alpha.toPrecision(4))}`,
    groupNorm && 'group norm',
    maxAttnLen === null ? 'whole window' : `${maxAttnLen} rows back`,
  ]
    .filter((part) => part !== false)
    .join(', ');

function describeVocabulary({
  vocabularySize,
  outOfVocabulary,
  actions,
}: Pick<Bundle['config'], 'vocabularySize' | 'outOfVocabulary' | 'actions'>): string {
  const others = outOfVocabulary === undefined ? '' : `, ${count(outOfVocabulary)} rows shared by all others`;
  return `${count(vocabularySize)} entities${others}; actions ${actions.encoded.join(', ')}`;
}

function describeTokens({ layout, values }: NonNullable<Bundle['config']['tokens']>): string {
  const buckets = Object.entries(values).map(([kind, edges]) => `${kind} in ${edges.length + 1} buckets`);
  return [layout, ...buckets].join(', ');
}

function describeUses(config: Pick<Bundle['config'], 'retrieval' | 'ranking'>): string {
  const tasks = config.ranking?.tasks.map(({ name, weight }) => `${name} × ${weight}`).join(', ');
  return [servesRetrieval(config) && 'retrieval', tasks && `ranking (${tasks})`].filter(Boolean).join(' and ');
}

async function readInput(file: string): Promise<Buffer> {
  return readFile(file).catch((cause: unknown) => {
    throw new PipelineError('CONFIG_INVALID', `cannot read ${file}: ${messageOf(cause)}`, { cause });
  });
}

function parseJson(text: string, file: string): Record<string, unknown> {
  try {
    return JSON.parse(text) as Record<string, unknown>;
  } catch (cause) {
    throw new PipelineError('CONFIG_INVALID', `${file} is not JSON: ${messageOf(cause)}`, { cause });
  }
}
