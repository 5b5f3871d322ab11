/** A token that a program prints: for providers with a way of their own. */
import { execFile } from 'node:child_process';
import { PipelineError } from '../../../schemas/errors.ts';
import { type BearerToken, MAX_TOKEN_BYTES, parseToken } from './bearer-token.ts';

/**
 * Runs the program, without a shell, with this process's environment.
 *
 * @throws PipelineError `KAFKA_AUTHENTICATION` where it cannot be run or gives no token, `KAFKA_UNAVAILABLE` where it fails or
 *   takes too long; what it printed is never told
 */
export async function runTokenCommand(argv: readonly string[], timeoutMs: number, now = Date.now): Promise<BearerToken> {
  const [program, ...args] = argv as [string, ...string[]];
  const whence = `kafka.sasl.command (${program})`;
  const printed = await new Promise<string>((resolve, reject) => {
    const options = { timeout: timeoutMs, killSignal: 'SIGKILL', maxBuffer: MAX_TOKEN_BYTES, encoding: 'utf8' } as const;
    const child = execFile(program, args, options, (error, stdout) => {
      if (error === null) return resolve(stdout);
      const { code } = error as { readonly code?: string | number | null };
      const fault = (code: 'KAFKA_AUTHENTICATION' | 'KAFKA_UNAVAILABLE', why: string) =>
        reject(new PipelineError(code, `${whence} ${why}`));
      if (code === 'ERR_CHILD_PROCESS_STDIO_MAXBUFFER')
        return fault('KAFKA_AUTHENTICATION', `printed more than ${MAX_TOKEN_BYTES} bytes`);
      if (typeof code === 'string') return fault('KAFKA_AUTHENTICATION', `cannot be run: ${code}`);
      if (error.killed) return fault('KAFKA_UNAVAILABLE', `did not end within ${timeoutMs} ms`);
      return fault('KAFKA_UNAVAILABLE', `ended with ${typeof code === 'number' ? code : error.signal}`);
    });
    child.stdin?.end();
  });
  return parseToken(printed, whence, now());
}
