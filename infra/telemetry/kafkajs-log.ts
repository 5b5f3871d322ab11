/**
 * What kafkajs has to say, in our log and in our measure: it reports at INFO what is routine, and at WARN and ERROR that a group
 * rebalances, which a healthy deployment does at every roll-out.
 */
import type { Logger } from './log.ts';

/** kafkajs' own `LogEntry`, in the parts that are read. */
interface KafkajsEntry {
  readonly namespace: string;
  readonly level: number;
  readonly label: string;
  readonly log: { readonly message: string } & Readonly<Record<string, unknown>>;
}

const ERROR = 1;
const WARN = 2;
const ROUTINE = /group is rebalancing/i;
/** What these report as errors they try again, and what they give up on is thrown, and told by us. */
const RETRIED = new Set(['Connection', 'Producer', 'Consumer', 'Runner', 'BrokerPool', 'Cluster', 'TransactionManager']);
/** Bodies of requests and responses, which may be those of a SASL handshake; and what our own lines already have. */
const DROPPED = new Set(['payload', 'sasl', 'authBytes', 'timestamp', 'logger', 'message']);

/** A `logCreator` for `new Kafka({ logCreator })`. */
export const kafkajsLogCreator = (logger: Logger) => () => {
  const log = logger.child({ part: 'kafkajs' });
  return ({ namespace, level, log: { message, ...extra } }: KafkajsEntry): void => {
    const kept = Object.entries(extra).filter(([key]) => !DROPPED.has(key));
    const fields = { ...(namespace !== '' && { namespace }), ...Object.fromEntries(kept) };
    const routine = ROUTINE.test(message) || ROUTINE.test(String(extra['error'] ?? ''));
    if (RETRIED.has(namespace)) log.debug(fields, message);
    else if (level <= WARN && routine) log.info(fields, message);
    else if (level === ERROR) log.error(fields, message);
    else if (level === WARN) log.warn(fields, message);
    else log.debug(fields, message);
  };
};
