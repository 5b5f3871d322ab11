/** What kafkajs throws, as errors of ours: which setting to mend, and whether trying again can help. */
import { messageOf, PipelineError } from '../../schemas/errors.ts';

/** Names the parts of a kafkajs error that tell faults apart. */
interface KafkaFault {
  readonly name: string;
  /** Protocol error, such as `INVALID_PRODUCER_EPOCH`. */
  readonly type: string | undefined;
  readonly code: string | undefined;
  readonly message: string;
}

const FENCED = new Set(['INVALID_PRODUCER_EPOCH', 'PRODUCER_FENCED', 'INVALID_PRODUCER_ID_MAPPING', 'INVALID_TXN_STATE']);
const DENIED = /AUTHORIZATION_FAILED$/;
/** Refused for what it is: it would be refused again. With the setting that mends it. */
const REFUSED: Readonly<Record<string, string>> = {
  MESSAGE_TOO_LARGE: 'raise max.message.bytes of the topic and message.max.bytes of the broker',
  RECORD_LIST_TOO_LARGE: 'raise max.message.bytes of the topic and message.max.bytes of the broker',
  INVALID_TRANSACTION_TIMEOUT: 'lower kafka.transactionTimeoutMs, or raise transaction.max.timeout.ms of the broker',
  INVALID_SESSION_TIMEOUT: 'set kafka.sessionTimeoutMs within the group.*.session.timeout.ms of the broker',
  UNSUPPORTED_FOR_MESSAGE_FORMAT: 'the topic holds a message format of before Kafka 0.11',
};
/** Refused for when it says it is of, against the broker's clock and `message.timestamp.*.max.ms` of the topic. */
const OFF_CLOCK = 'INVALID_TIMESTAMP';
/**
 * How kafkajs fails where an answer did not come, or named no such partition: it reads on in what it has not got, and takes the
 * `TypeError` for final.
 */
const NO_ANSWER = /^Cannot (read properties of|destructure property '\w+' of) .*(undefined|null)|^undefined is not iterable/;
/** What Node's TLS says of a certificate; see its `tls` documentation, "X509 certificate error codes". */
const CERTIFICATE = /CERT_|SELF_SIGNED|UNABLE_TO_(GET_ISSUER|VERIFY)|ERR_TLS|certificate|SSL routines|wrong version number/i;
/** How Node tells that the other side closed while TLS was being agreed on: a broker that stops, or one that does not speak TLS. */
const CUT_OFF_IN_TLS = /socket disconnected before secure TLS/;
/** kafkajs makes every fault during a login one of the login; a connection that ended is none. */
const CUT_OFF_IN_LOGIN = /closed connection|connection (closed|error|timeout)|not connected|timed out/i;

/**
 * The error of ours for what a call to Kafka threw.
 *
 * @param what the call in words, `fetching from user-actions`
 * @returns `KAFKA_AUTHENTICATION`, `KAFKA_AUTHORIZATION`, `KAFKA_REFUSED`, `CLOCK_OFF` (final: the deployment must be mended), `PRODUCER_FENCED` (another
 *   instance owns the partition now), `KAFKA_UNAVAILABLE` (no broker answers) or `KAFKA_FAILED`, the retriable rest
 */
export function kafkaError(thrown: unknown, what: string): PipelineError {
  const ours = ownError(thrown);
  if (ours !== undefined) return ours;
  const faults = causesOf(thrown);
  const text = `${what}: ${[...new Set(faults.map(said))].join(' ← ')}`;
  const error = (code: PipelineError['code'], hint = '') => new PipelineError(code, `${text}${hint}`, { cause: thrown });
  const some = (test: (fault: KafkaFault) => boolean) => faults.some(test);

  const login = faults.filter(({ name }) => name === 'KafkaJSSASLAuthenticationError');
  if (login.some(({ message }) => CUT_OFF_IN_LOGIN.test(message))) return error('KAFKA_UNAVAILABLE', ' (during the login)');
  if (login.length > 0 || some(({ type }) => type === 'SASL_AUTHENTICATION_FAILED'))
    return error(
      'KAFKA_AUTHENTICATION',
      ' (check kafka.sasl: mechanism, and username and password or where the token comes from)',
    );
  if (some(({ code, message }) => CERTIFICATE.test(code ?? '') || CERTIFICATE.test(message)))
    return error('KAFKA_AUTHENTICATION', ' (check kafka.ssl: caFile, serverName, and how long the certificates are valid)');
  if (isCutOffInTls(text))
    return error('KAFKA_UNAVAILABLE', ' (the broker closed: it stops, or does not speak TLS there; check kafka.ssl)');
  const denied = faults.find(({ type }) => type !== undefined && DENIED.test(type));
  if (denied !== undefined) return error('KAFKA_AUTHORIZATION', ` (grant the user of kafka.sasl the ACL: ${denied.type})`);
  const refused = faults.find(({ type }) => type !== undefined && Object.hasOwn(REFUSED, type));
  if (refused !== undefined) return error('KAFKA_REFUSED', ` (${REFUSED[refused.type!]})`);
  if (some(({ type }) => type === OFF_CLOCK))
    return error(
      'CLOCK_OFF',
      ` (the clock of this machine, ${new Date().toISOString()}, is not the brokers'; or the topic's message.timestamp.after.max.ms and .before.max.ms are too narrow)`,
    );
  if (some(({ type }) => type !== undefined && FENCED.has(type))) return error('PRODUCER_FENCED');
  if (some(({ name, code }) => name === 'KafkaJSNoBrokerAvailableError' || code === 'ECONNREFUSED' || code === 'ENOTFOUND'))
    return error('KAFKA_UNAVAILABLE', ' (check kafka.brokers; `hstu-streams up` starts one on this machine)');
  return error('KAFKA_FAILED');
}

/** What a part of ours that kafkajs calls has thrown, however kafkajs wraps it. */
function ownError(thrown: unknown): PipelineError | undefined {
  for (let error = thrown, depth = 0; error instanceof Error && depth < 8; depth++) {
    if (error instanceof PipelineError) return error;
    const { originalError, cause } = error as { readonly originalError?: unknown; readonly cause?: unknown };
    error = originalError ?? cause;
  }
  return undefined;
}

/** Whether the other side closed while TLS was being agreed on. */
export const isCutOffInTls = (text: string): boolean => CUT_OFF_IN_TLS.test(text);

const said = ({ message }: KafkaFault): string =>
  NO_ANSWER.test(message) ? `the brokers gave no answer, or none about this (${message})` : message;

/** The fault, what it wraps, and so on inwards. */
function causesOf(thrown: unknown): KafkaFault[] {
  const faults: KafkaFault[] = [];
  const seen = new Set<unknown>();
  const visit = (error: unknown) => {
    if (error === undefined || error === null || seen.has(error)) return;
    seen.add(error);
    const { name, type, code, cause, originalError, errors } = error as Record<string, unknown>;
    faults.push({
      name: String(name ?? ''),
      type: typeof type === 'string' ? type : undefined,
      code: typeof code === 'string' ? code : undefined,
      message: messageOf(error),
    });
    visit(cause);
    visit(originalError);
    if (Array.isArray(errors)) for (const inner of errors) visit(inner);
  };
  visit(thrown);
  return faults;
}
