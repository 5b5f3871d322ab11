/** Who can log in to a `sasl-ssl` cluster of ours: one who may do all, the pipeline, and one whom nothing is granted. */
import { randomBytes } from 'node:crypto';
import type { KafkaUser } from './cluster-file.ts';

/** Super user. */
export const ADMIN = 'admin';
/** May read and write every topic, group and transactional id: what a deployment is granted. */
export const PIPELINE_USER = 'hstu-streams';
/** Logs in, and is refused everything: for tests of what a missing ACL looks like. */
export const OUTSIDER = 'outsider';

export const USERS = [ADMIN, PIPELINE_USER, OUTSIDER] as const;

/** With passwords of their own. */
export const makeUsers = (): KafkaUser[] =>
  USERS.map((username) => ({ username, password: randomBytes(12).toString('base64url') }));
