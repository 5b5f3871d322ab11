/** What `run` and `sink` have in common: a signal drains, a failure ends the process, both within a time. */
import type { Logger } from '../../infra/telemetry/log.ts';
import { endInTime } from './end-in-time.ts';
import { type Interrupt, onInterrupt } from './interrupt.ts';

/** Beyond the drain: leaving the group, closing connections. */
const CLOSE_MS = 10_000;
/** For a connection whose closing was cut short, ms. */
const LINGER_MS = 1_000;

export interface InstanceOptions {
  readonly logger: Logger;
  readonly drainTimeoutMs: number;
  /** Said at the first signal, and where the drain is not over in time. */
  readonly stopping: string;
  readonly late: string;
}

export interface InstanceEnds extends Interrupt {
  /** What ends the instance: the process follows, whatever it has still open. */
  readonly onFailed: (error: unknown) => void;
  /** The work is over and all is closed: what still keeps the process alive is not waited for. */
  readonly over: () => void;
}

export function instanceEnds({ logger, drainTimeoutMs, stopping, late }: InstanceOptions): InstanceEnds {
  const interrupt = onInterrupt(() => {
    logger.info(stopping);
    setTimeout(() => {
      logger.error(late);
      process.exit(1);
    }, drainTimeoutMs + CLOSE_MS).unref();
  });
  let failed = false;
  const onFailed = (error: unknown) => {
    if (failed) return;
    failed = true;
    endInTime(error, () => logger.error('not all was closed in time: ending'));
  };
  const over = () => {
    interrupt.dispose();
    setTimeout(() => process.exit(), LINGER_MS).unref();
  };
  return { ...interrupt, onFailed, over };
}
