/** `hstu-streams explain`: the steps of a stream, what bounds them, and where their code is. */
import type { Command } from 'commander';
import { table } from '../../infra/console/table.ts';
import { loadConfig } from '../load-config.ts';
import { mermaid, topology } from '../topology.ts';
import { collect } from './options.ts';

export function addExplain(program: Command): void {
  program
    .command('explain')
    .description('show the steps of a stream, what passes between them and what bounds them')
    .option('-c, --config <file>', 'configuration, YAML', 'examples/movielens/replay.yaml')
    .option('--set <key=value>', 'override a setting (repeatable)', collect, [])
    .option('--mermaid', 'print a Mermaid flow chart')
    .action(async (options: { config: string; set: string[]; mermaid?: true }) => {
      const steps = topology(await loadConfig({ file: options.config, environment: process.env, assignments: options.set }));
      console.log(
        options.mermaid
          ? mermaid(steps).trimEnd()
          : table(steps.map(({ id, does, output, bounds, file }) => ({ step: id, does, output, bounds, file }))),
      );
    });
}
