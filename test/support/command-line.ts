/** Runs the command line as a user does: a process of its own. */
import { spawn } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { compiledCli } from './compiled-cli.ts';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));

export interface CommandResult {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

export interface CommandOptions {
  /** Send SIGINT once the output on standard error matches. */
  readonly interruptAt?: RegExp;
  /** PATH of the command instead of ours. */
  readonly path?: string;
}

export function runCommand(args: readonly string[], { interruptAt, path }: CommandOptions = {}): Promise<CommandResult> {
  const child = spawn(process.execPath, [compiledCli(), ...args], {
    cwd: ROOT,
    env: { ...process.env, NO_COLOR: '1', FORCE_COLOR: undefined, ...(path !== undefined && { PATH: path }) },
  });
  let stdout = '';
  let stderr = '';
  let interrupted = false;
  child.stdout.on('data', (chunk: Buffer) => {
    stdout += chunk.toString();
  });
  child.stderr.on('data', (chunk: Buffer) => {
    stderr += chunk.toString();
    if (!interrupted && interruptAt?.test(stderr) === true) {
      interrupted = true;
      child.kill('SIGINT');
    }
  });
  return new Promise((resolve, reject) => {
    child.on('error', reject);
    child.on('close', (code) => resolve({ code, stdout, stderr }));
  });
}
