/** Of a whole vitest run: where its Kafka clusters lie, and their end. Nothing starts here; `kafka-broker.ts` does, when asked. */
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { TestProject } from 'vitest/node';
import { isAlive } from '../../infra/files/is-alive.ts';
import { openKafka } from '../../infra/kafka/broker/start-kafka.ts';

declare module 'vitest' {
  interface ProvidedContext {
    /** Prefix of the folders of this run's clusters. */
    kafkaFolder: string;
  }
}

/** Beside the jars, which every run and `hstu-streams up` share. */
const CLUSTERS = fileURLToPath(new URL('../../.hstu/kafka', import.meta.url));
const prefixOf = (pid: number): string => `test-${pid}-`;

export default async function setup(project: TestProject): Promise<() => Promise<void>> {
  project.provide('kafkaFolder', join(CLUSTERS, prefixOf(process.pid)));
  // Left by runs that were killed before they could clean up.
  await destroyWhere((pid) => !isAlive(pid));
  return () => destroyWhere((pid) => pid === process.pid);
}

async function destroyWhere(ofRun: (pid: number) => boolean): Promise<void> {
  const folders = await readdir(CLUSTERS).catch(() => []);
  const ended = folders.filter((name) => {
    const pid = /^test-(\d+)-[^.]+$/.exec(name)?.[1];
    return pid !== undefined && ofRun(Number(pid));
  });
  await Promise.all(ended.map(async (name) => (await openKafka(join(CLUSTERS, name)))?.destroy()));
}
