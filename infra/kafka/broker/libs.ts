/** The jars of Apache Kafka: fetched from Maven Central once, then used from the folder they lie in. */
import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdir, readdir, readFile, rename, rm, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { PipelineError } from '../../../schemas/errors.ts';
import { requireMaven } from './java.ts';
import { withLock } from './lock.ts';

export const KAFKA_VERSION = '4.3.1';
/** What Maven downloads for it when it has nothing yet, its own plugin's jars among them: the end of a progress bar. */
export const FETCHED_JARS = 140;

const STAMP = 'complete.json';
/** A slow line may take this long for 55 MB; another starter waits as long. */
const FETCH_TIMEOUT_MS = 600_000;

const dependency = (group: string, artifact: string, version: string) =>
  `<dependency><groupId>${group}</groupId><artifactId>${artifact}</artifactId><version>${version}</version></dependency>`;

const POM = `<?xml version="1.0" encoding="UTF-8"?>
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>local</groupId><artifactId>hstu-streams-kafka</artifactId><version>1</version><packaging>pom</packaging>
  <dependencies>
    ${dependency('org.apache.kafka', 'kafka_2.13', KAFKA_VERSION)}
    ${dependency('org.apache.kafka', 'kafka-tools', KAFKA_VERSION)}
    ${dependency('org.apache.logging.log4j', 'log4j-slf4j-impl', '2.25.4')}
  </dependencies>
  <build><plugins><plugin>
    <groupId>org.apache.maven.plugins</groupId><artifactId>maven-dependency-plugin</artifactId><version>3.8.1</version>
  </plugin></plugins></build>
</project>
`;

/** Name and size of every jar, and of what they are the dependencies. */
interface Stamp {
  readonly pom: string;
  readonly bytes: Readonly<Record<string, number>>;
}

/**
 * Makes sure that `folder` holds every jar, whole.
 *
 * @param onJar called with the number of jars downloaded so far, 0 first; never when all are there
 * @throws PipelineError `KAFKA_UNAVAILABLE` without Maven, or when it cannot fetch, with what it said
 */
export async function ensureKafkaJars(folder: string, onJar: (done: number) => void): Promise<void> {
  if (await isComplete(folder)) return;
  await withLock(`${folder}.lock`, FETCH_TIMEOUT_MS, async () => {
    if (await isComplete(folder)) return;
    await requireMaven();
    const draft = `${folder}.partial`;
    await rm(draft, { recursive: true, force: true });
    await mkdir(draft, { recursive: true });
    await writeFile(join(draft, 'pom.xml'), POM);
    await fetchJars(draft, onJar);
    await writeFile(join(draft, STAMP), `${JSON.stringify(await stampOf(draft))}\n`);
    await rm(folder, { recursive: true, force: true });
    await rename(draft, folder);
  });
}

/** Whether a start needs Maven and the network. */
export async function isComplete(folder: string): Promise<boolean> {
  try {
    const { pom, bytes } = JSON.parse(await readFile(join(folder, STAMP), 'utf8')) as Stamp;
    if (pom !== digest(POM)) return false;
    const found = await stampOf(folder);
    return Object.entries(bytes).every(([name, size]) => found.bytes[name] === size);
  } catch {
    return false;
  }
}

const digest = (text: string): string => createHash('sha256').update(text).digest('hex');

async function stampOf(folder: string): Promise<Stamp> {
  const names = (await readdir(folder)).filter((name) => name.endsWith('.jar')).sort();
  const sizes = await Promise.all(names.map(async (name) => [name, (await stat(join(folder, name))).size] as const));
  return { pom: digest(POM), bytes: Object.fromEntries(sizes) };
}

async function fetchJars(folder: string, onJar: (done: number) => void): Promise<void> {
  const args = ['-B', '-f', join(folder, 'pom.xml'), 'dependency:copy-dependencies'];
  const child = spawn('mvn', [...args, `-DoutputDirectory=${folder}`, '-DincludeScope=runtime'], {
    stdio: ['ignore', 'pipe', 'pipe'],
    timeout: FETCH_TIMEOUT_MS,
  });
  const said: string[] = [];
  let done = 0;
  onJar(done);
  const listen = (line: string) => {
    said.push(line);
    if (/Downloaded from .*\.jar/.test(line)) onJar(Math.min(++done, FETCHED_JARS));
  };
  createInterface(child.stdout).on('line', listen);
  createInterface(child.stderr).on('line', listen);
  const code = await new Promise<number | null>((resolve, reject) => {
    child.once('error', reject);
    child.once('close', resolve);
  });
  if (code === 0) return;
  const errors = said.filter((line) => line.startsWith('[ERROR]')).slice(0, 5);
  throw new PipelineError(
    'KAFKA_UNAVAILABLE',
    [
      `Maven could not fetch Apache Kafka ${KAFKA_VERSION} (exit ${code ?? 'by a signal'}): check the network, or the mirror in ~/.m2/settings.xml; a second try goes on where this one stopped`,
      ...(errors.length > 0 ? errors : said.slice(-5)),
    ].join('\n  '),
  );
}
