/** A token for Amazon MSK: a request signed with the credentials of AWS, which the brokers have checked (IAM). */
import { messageOf, PipelineError } from '../../../schemas/errors.ts';
import type { AwsConfig } from '../../../schemas/kafka-sasl.ts';
import type { BearerToken } from './bearer-token.ts';

/**
 * @throws PipelineError `KAFKA_AUTHENTICATION` where there are no credentials, or none that may be used
 */
export async function signMskToken({ region, roleArn }: AwsConfig): Promise<BearerToken> {
  // AWS' client is large: only who logs in with it loads it.
  const { generateAuthToken } = await import('aws-msk-iam-sasl-signer-js');
  const who = roleArn === undefined ? {} : { awsRoleArn: roleArn, awsRoleSessionName: 'hstu-streams' };
  try {
    const { token, expiryTime } = await generateAuthToken({ region, ...who });
    return { value: token, expiresAtMs: expiryTime };
  } catch (cause) {
    throw new PipelineError(
      'KAFKA_AUTHENTICATION',
      `no credentials of AWS for ${region} (${messageOf(cause)}); they come from the environment, a profile, a web identity, the container or the instance`,
    );
  }
}
