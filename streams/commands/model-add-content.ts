/** `hstu-streams model add-content`: a bundle that scores unseen entities by their content. */
import type { Command } from 'commander';
import { count } from '../../infra/console/format.ts';
import { requireOtherFile } from '../../infra/files/output-file.ts';
import { addContent } from '../../models/catalogue/add-content.ts';
import { bundleFiles, loadBundle, writeBundle } from '../../models/hstu/bundle.ts';
import { PipelineError } from '../../schemas/errors.ts';
import { readEntityUpdates } from '../entity-updates.ts';

export function addAddContent(model: Command): void {
  model
    .command('add-content')
    .description("fit a projection of content embeddings to a bundle's entities, so that new ones are scored by their content")
    .requiredOption('--bundle <folder>', 'model bundle')
    .requiredOption('--content <file>', 'JSON lines {"entity", "content": [numbers]} of entities of the vocabulary, or CSV')
    .requiredOption('--out <folder>', 'where to write the bundle with the projection')
    .option('--model <name>', 'what made the content embeddings, for the record')
    .option('--ridge <share>', 'penalty, as a share of the mean variance of a content dimension', Number, 0.1)
    .action(async (options: { bundle: string; content: string; out: string; model?: string; ridge: number }) => {
      if (!(options.ridge > 0 && Number.isFinite(options.ridge)))
        throw new PipelineError('CONFIG_INVALID', `--ridge must be a number above 0 (found: ${options.ridge})`);
      requireOtherFile(bundleFiles(options.out), [...bundleFiles(options.bundle), options.content]);
      const bundle = await loadBundle(options.bundle);
      const content = await readContent(options.content);
      const fitted = addContent(bundle, content, { ridge: options.ridge, model: options.model });
      await writeBundle(options.out, fitted.bundle);
      console.log(
        `${options.out}: projection of ${fitted.dimension} numbers fitted to ${count(fitted.entities)} entities; ` +
          `of a tenth of them, held out: cosine of the projected row with the true one ${fitted.heldOutCosine.toFixed(3)} on average`,
      );
    });
}

/** @throws PipelineError `CONFIG_INVALID` at the first faulty line: a fit to a part would be another model */
async function readContent(file: string): Promise<ReadonlyMap<string, Float32Array>> {
  const content = new Map<string, Float32Array>();
  for await (const { parsed, number } of readEntityUpdates(file)) {
    if (!parsed.ok) throw new PipelineError('CONFIG_INVALID', `${file}, line ${number}: ${parsed.message}`);
    if (parsed.update.content !== undefined) content.set(parsed.update.entity, parsed.update.content);
  }
  return content;
}
