/** A process that has failed ends, whatever it has still open: what restarts it waits for that. */
import { PipelineError } from '../../schemas/errors.ts';

/** For leaving the group and closing connections, ms. */
const CLOSE_WITHIN_MS = 8_000;

/** Exit code of a command that ends with `error`: 2 for a fault of configuration, else 1. */
export const exitCodeOf = (error: unknown): number => (error instanceof PipelineError ? error.exitCode : 1);

/**
 * Ends the process with the exit code of `error`, after a while, if it has not ended by itself.
 *
 * @param announce said before that
 */
export function endInTime(error: unknown, announce: () => void = () => undefined, withinMs = CLOSE_WITHIN_MS): void {
  setTimeout(() => {
    announce();
    process.exit(exitCodeOf(error));
  }, withinMs).unref();
}
