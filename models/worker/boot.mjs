// Starts a worker written in TypeScript from source: Node 20 gives worker threads no TypeScript loader of their own.
import { workerData } from 'node:worker_threads';
import { register } from 'tsx/esm/api';

register();
await import(workerData.entry);
