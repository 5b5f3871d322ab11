/** Java and Maven as they are on this machine: the local broker is the real Apache Kafka, which needs both once, then Java only. */
import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { messageOf, PipelineError } from '../../../schemas/errors.ts';

const run = promisify(execFile);

/** Oldest Java that runs a broker of Kafka 4. */
export const MIN_JAVA = 17;

const INSTALL_JAVA = `install Java ${MIN_JAVA} or newer (apt-get install openjdk-17-jre-headless, brew install openjdk@17) and have \`java\` on the PATH`;
const INSTALL_MAVEN = 'install Maven (apt-get install maven, brew install maven) and have `mvn` on the PATH';

/**
 * @returns the version, such as `17.0.15`
 * @throws PipelineError `KAFKA_UNAVAILABLE` when there is no Java; `CONFIG_INVALID` when it is too old
 */
export async function requireJava(): Promise<string> {
  // Java prints its version on standard error: `openjdk version "17.0.15" 2025-04-15`; Java 8 calls itself 1.8.
  const text = await output('java', ['-version'], INSTALL_JAVA);
  const version = /version "(?:1\.)?([^"]+)"/.exec(text)?.[1];
  if (version === undefined)
    throw new PipelineError('CONFIG_INVALID', `\`java -version\` does not name a version (${firstLine(text)}): ${INSTALL_JAVA}`);
  if (Number.parseInt(version, 10) < MIN_JAVA)
    throw new PipelineError(
      'CONFIG_INVALID',
      `Java ${version} is too old for Kafka 4, which needs ${MIN_JAVA} or newer: ${INSTALL_JAVA}`,
    );
  return version;
}

/**
 * @returns the version, such as `3.8.7`
 * @throws PipelineError `KAFKA_UNAVAILABLE` when there is no Maven
 */
export async function requireMaven(): Promise<string> {
  const text = await output('mvn', ['-B', '--version'], INSTALL_MAVEN);
  return /Apache Maven (\S+)/.exec(text)?.[1] ?? firstLine(text);
}

async function output(program: string, args: readonly string[], cure: string): Promise<string> {
  try {
    const { stdout, stderr } = await run(program, args, { timeout: 30_000 });
    return `${stdout}${stderr}`;
  } catch (cause) {
    const missing = (cause as NodeJS.ErrnoException).code === 'ENOENT';
    const problem = missing ? `\`${program}\` is not on the PATH` : `\`${program}\` does not run (${messageOf(cause)})`;
    throw new PipelineError('KAFKA_UNAVAILABLE', `${problem}: ${cure}`, { cause });
  }
}

const firstLine = (text: string): string => text.trim().split('\n')[0] ?? '';
