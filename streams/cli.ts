#!/usr/bin/env node
/** The command line: reads arguments, runs a command, and turns errors into messages and exit codes. */
import { readFileSync } from 'node:fs';
import { Command } from 'commander';
import colors from 'picocolors';
import { guardOutput } from '../infra/console/guard-output.ts';
import { openFilesProblem } from '../infra/console/open-files.ts';
import { printableLines } from '../infra/console/printable.ts';
import { PipelineError } from '../schemas/errors.ts';
import { endInTime, exitCodeOf } from './commands/end-in-time.ts';

/** Exit code of wrong arguments and wrong configuration. */
const USAGE = 2;
/** What a command that has failed may leave open is not waited for longer than this, ms. */
const LINGER_MS = 1_000;

const packageFile = ['../package.json', '../../package.json'].map((path) => new URL(path, import.meta.url));
const { version } = JSON.parse(readFirst(packageFile)) as { version: string };

guardOutput();
const tooFew = openFilesProblem();
if (tooFew !== undefined) {
  process.stderr.write(`${colors.red('CONFIG_INVALID')} ${tooFew}: raise it, for instance by ulimit -n 1024\n`);
  process.exit(USAGE);
}
// Only now: loading all commands opens more files at once than such a limit allows.
const { addCommands } = await import('./commands/index.ts');
const program = new Command('hstu-streams')
  .description('Exact incremental HSTU over streams of user actions.')
  .version(version)
  .showHelpAfterError('(--help shows the options)')
  .exitOverride((error) => process.exit(error.exitCode === 0 ? 0 : USAGE));
addCommands(program);
inherit(program);

try {
  await program.parseAsync();
} catch (thrown) {
  if (thrown instanceof PipelineError) {
    process.stderr.write(`${colors.red(thrown.code)} ${printableLines(thrown.message, '  ')}\n`);
    process.exitCode = exitCodeOf(thrown);
    endInTime(thrown, undefined, LINGER_MS);
  } else {
    process.stderr.write(`${printableLines(thrown instanceof Error ? (thrown.stack ?? thrown.message) : String(thrown))}\n`);
    process.exit(1);
  }
}

/** Sub-commands exit like the program does. */
function inherit(parent: Command): void {
  for (const command of parent.commands) {
    command.copyInheritedSettings(parent);
    inherit(command);
  }
}

function readFirst(files: readonly URL[]): string {
  for (const file of files) {
    try {
      return readFileSync(file, 'utf8');
    } catch {
      // The other place then: source and build lie at different depths.
    }
  }
  throw new Error('package.json is missing');
}
