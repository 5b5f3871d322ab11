/** Ports of this machine: whether one is free, and some that are. */
import { randomInt } from 'node:crypto';
import { createServer } from 'node:net';
import { PipelineError } from '../../../schemas/errors.ts';

/**
 * Below the range from which systems take the ports of outgoing connections: there, a client that tries again while its
 * broker is down can be given the broker's own port, and the broker cannot come back.
 */
const FREE_FROM = 20_000;
const FREE_TO = 32_000;
const ATTEMPTS = 100;

export function isPortFree(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const server = createServer();
    server.once('error', () => resolve(false));
    server.listen({ port, host: '127.0.0.1', exclusive: true }, () => server.close(() => resolve(true)));
  });
}

/**
 * The first of `count` free ports in a row.
 *
 * @throws PipelineError `KAFKA_UNAVAILABLE` when a hundred tries found none
 */
export async function freePorts(count: number): Promise<number> {
  for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
    const first = randomInt(FREE_FROM, FREE_TO - count);
    if ((await busyPorts(first, count)).length === 0) return first;
  }
  throw new PipelineError('KAFKA_UNAVAILABLE', `no ${count} free ports in a row between ${FREE_FROM} and ${FREE_TO}`);
}

/** Those of `count` ports from `first` on that another process listens on. */
export async function busyPorts(first: number, count: number): Promise<number[]> {
  const ports = Array.from({ length: count }, (_, i) => first + i);
  const free = await Promise.all(ports.map(isPortFree));
  return ports.filter((_, i) => !free[i]);
}
