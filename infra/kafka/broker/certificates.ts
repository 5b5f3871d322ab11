/** Certificates of a local cluster, made by Java's own keytool: a CA for the clients, a key store for the brokers. */
import { execFile } from 'node:child_process';
import { access, mkdir, rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { messageOf, PipelineError } from '../../../schemas/errors.ts';

const run = promisify(execFile);

/** Protects nothing: whoever reads the key store can read this file too. PKCS12 wants one. */
export const KEYSTORE_PASSWORD = 'hstu-streams';

export interface Certificates {
  /** PEM: what a client sets as `kafka.ssl.caFile`. */
  readonly caFile: string;
  /** PKCS12: the brokers' key and certificate, for localhost and 127.0.0.1. */
  readonly keystore: string;
}

/** Certificates that ran out five days ago: so that what a client makes of that can be seen. */
export type CertificateKind = 'valid' | 'expired';

const VALIDITY: Readonly<Record<CertificateKind, readonly string[]>> = {
  valid: ['-validity', '3650'],
  expired: ['-startdate', '-10d', '-validity', '5'],
};

/**
 * Makes what is missing in the folder: the CA is one and the same for both kinds, so that only the date is wrong.
 *
 * @throws PipelineError `KAFKA_UNAVAILABLE` when keytool fails, with what it said
 */
export async function ensureCertificates(folder: string, kind: CertificateKind): Promise<Certificates> {
  const caStore = join(folder, 'ca.p12');
  const caFile = join(folder, 'ca.pem');
  const keystore = join(folder, `broker-${kind}.p12`);
  await mkdir(folder, { recursive: true, mode: 0o700 });
  if (!(await exists(caFile))) {
    await rm(caStore, { force: true });
    await keytool(
      caStore,
      '-genkeypair',
      '-alias',
      'ca',
      ...key('hstu-streams local CA'),
      '-ext',
      'bc:critical=ca:true',
      ...VALIDITY.valid,
    );
    await keytool(caStore, '-exportcert', '-rfc', '-alias', 'ca', '-file', caFile);
  }
  if (!(await exists(keystore))) {
    const draft = `${keystore}.draft`;
    const request = join(folder, 'broker.csr');
    const signed = join(folder, 'broker.pem');
    await rm(draft, { force: true });
    await keytool(draft, '-genkeypair', '-alias', 'broker', ...key('localhost'), ...VALIDITY.valid);
    await keytool(draft, '-certreq', '-alias', 'broker', '-file', request);
    const names = ['-ext', 'san=dns:localhost,ip:127.0.0.1'];
    await keytool(
      caStore,
      '-gencert',
      '-rfc',
      '-alias',
      'ca',
      '-infile',
      request,
      '-outfile',
      signed,
      ...names,
      ...VALIDITY[kind],
    );
    await keytool(draft, '-importcert', '-noprompt', '-alias', 'ca', '-file', caFile);
    await keytool(draft, '-importcert', '-noprompt', '-alias', 'broker', '-file', signed);
    await rename(draft, keystore);
  }
  return { caFile, keystore };
}

const key = (commonName: string) => ['-keyalg', 'EC', '-groupname', 'secp256r1', '-dname', `CN=${commonName}`];

async function keytool(store: string, ...args: string[]): Promise<void> {
  try {
    await run('keytool', [...args, '-keystore', store, '-storetype', 'PKCS12', '-storepass', KEYSTORE_PASSWORD]);
  } catch (cause) {
    const { stdout = '', stderr = '' } = cause as { stdout?: string; stderr?: string };
    const said = `${stdout}${stderr}`.trim() || messageOf(cause);
    throw new PipelineError('KAFKA_UNAVAILABLE', `Java's keytool could not make certificates: ${said}`, { cause });
  }
}

const exists = (file: string): Promise<boolean> =>
  access(file).then(
    () => true,
    () => false,
  );
