/** How an instance logs in to the brokers: with a password, with a bearer token, or as AWS knows it. */
import { z } from 'zod';
import { secretText } from './settings.ts';

const text = z.string().min(1);

/** Whether a host, as an address names it, is this machine. */
export const isLoopback = (host: string): boolean => /^(localhost|(.+\.)?localhost|127(\.\d{1,3}){3}|\[?::1\]?)$/i.test(host);

/** A secret is sent there: in clear text only within this machine. */
const tokenUrl = z
  .url()
  .refine((url) => {
    const { protocol, hostname } = new URL(url);
    return protocol === 'https:' || (protocol === 'http:' && isLoopback(hostname));
  }, 'must be https (http only of this machine): the client secret is sent there')
  .refine((url) => new URL(url).username + new URL(url).password === '', 'must name no user: that is clientId, clientSecret');

const passwordLogin = z.strictObject({
  mechanism: z.enum(['plain', 'scram-sha-256', 'scram-sha-512']),
  username: text,
  /** Better from the environment: HSTU_KAFKA__SASL__PASSWORD. */
  password: secretText().min(1),
});

const bearerLogin = z
  .strictObject({
    mechanism: z.literal('oauthbearer'),
    /** OAuth 2.0 client credentials (RFC 6749, section 4.4): the token of an identity provider. */
    clientCredentials: z
      .strictObject({
        tokenUrl,
        clientId: text,
        /** Better from the environment: HSTU_KAFKA__SASL__CLIENT_CREDENTIALS__CLIENT_SECRET. */
        clientSecret: secretText().min(1),
        scope: text.optional(),
        audience: text.optional(),
      })
      .optional(),
    /** Program and arguments (no shell) that print a token, or JSON `{"access_token", "expires_in"}`. */
    command: z.array(text).min(1).max(64).optional(),
    /** How long the token endpoint or the command may take, ms. */
    timeoutMs: z.int().min(100).max(60_000).default(10_000),
    /** SASL extensions (RFC 7628, section 3.1), as some brokers want them: name → value. */
    extensions: z
      .record(
        z.string().regex(/^(?!auth$)[A-Za-z]+$/, 'letters, and not auth'),
        z.string().regex(/^[\x20-\x7e\t\r\n]*$/, 'printable ASCII'),
      )
      .optional(),
  })
  .refine(({ clientCredentials, command }) => (clientCredentials === undefined) !== (command === undefined), {
    error: 'needs either clientCredentials or command',
  });

const awsLogin = z.strictObject({
  /** Amazon MSK: credentials from where AWS' own tools take them (environment, AWS_PROFILE, web identity, container, instance). */
  mechanism: z.literal('aws-msk-iam'),
  /** Of the cluster: `eu-central-1`. */
  region: z.string().regex(/^[a-z]{2}(-[a-z]+)+-\d$/, 'a region of AWS, such as eu-central-1'),
  /** ARN of a role to assume. @default none */
  roleArn: z
    .string()
    .regex(/^arn:aws[\w-]*:iam::\d{12}:role\/.+$/, 'arn:aws:iam::…:role/…')
    .optional(),
});

export const saslSchema = z.discriminatedUnion('mechanism', [passwordLogin, bearerLogin, awsLogin], {
  error: 'expected plain, scram-sha-256, scram-sha-512, oauthbearer or aws-msk-iam',
});

export type SaslConfig = z.infer<typeof saslSchema>;
export type BearerConfig = z.infer<typeof bearerLogin>;
export type AwsConfig = z.infer<typeof awsLogin>;
export type ClientCredentials = NonNullable<BearerConfig['clientCredentials']>;

/** As whom an instance logs in, as far as the configuration says. */
export function loginName(sasl: SaslConfig): string | undefined {
  if (sasl.mechanism === 'aws-msk-iam') return sasl.roleArn;
  return sasl.mechanism === 'oauthbearer' ? sasl.clientCredentials?.clientId : sasl.username;
}
