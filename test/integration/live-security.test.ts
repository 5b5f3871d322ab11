/** Logins against a real broker with TLS, SCRAM and ACLs: what is right works, and each fault says what it is, once. */
import { writeFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import kafkajs from 'kafkajs';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { stringify } from 'yaml';
import type { LocalKafka } from '../../infra/kafka/broker/local-kafka.ts';
import { startKafka } from '../../infra/kafka/broker/start-kafka.ts';
import { ADMIN, OUTSIDER, PIPELINE_USER } from '../../infra/kafka/broker/users.ts';
import { kafkaClient } from '../../infra/kafka/kafka-client.ts';
import type { Bundle } from '../../models/hstu/bundle.ts';
import { runCommand } from '../support/command-line.ts';
import { kafkaIsPossible, privateKafka, randomName } from '../support/kafka-broker.ts';
import { liveBundle, liveEvents } from '../support/live-bundle.ts';
import { LiveWorld } from '../support/live-world.ts';

/** Of a token, and so of a login with it, seconds: kafkajs logs in again 10 s before the end. */
const LIFE_S = 12;
const WITH_TOKENS = {
  'sasl.enabled.mechanisms': 'SCRAM-SHA-512,OAUTHBEARER',
  'listener.name.clients.sasl.enabled.mechanisms': 'SCRAM-SHA-512,OAUTHBEARER',
  'listener.name.clients.oauthbearer.sasl.jaas.config':
    'org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule required;',
  'listener.name.clients.oauthbearer.connections.max.reauth.ms': '3600000',
};

let broker: LocalKafka;
let bundle: { readonly bundle: Bundle; readonly path: string };
let world: LiveWorld;

describe.skipIf(!kafkaIsPossible)('live, over TLS and SASL', { timeout: 120_000 }, () => {
  beforeAll(async () => {
    [bundle, broker] = await Promise.all([liveBundle(), privateKafka({ security: 'sasl-ssl', overrides: WITH_TOKENS })]);
    world = await LiveWorld.create({ broker, name: randomName('secure'), bundlePath: bundle.path, bundle: bundle.bundle });
  }, 180_000);
  afterAll(async () => {
    await world?.close();
    await broker?.destroy();
  });

  /** Runs an instance that must fail, and what it said. */
  const runWith = async (connection: ReturnType<LocalKafka['connection']>) => {
    const file = join(world.folder, `${randomName('run')}.yaml`);
    await writeFile(
      file,
      stringify({
        ...world.config,
        state: { path: join(world.folder, 'none') },
        kafka: { ...world.config.kafka, ...connection },
      }),
    );
    const began = performance.now();
    const { code, stderr } = await runCommand(['run', '-c', file]);
    return { code, stderr, seconds: (performance.now() - began) / 1000 };
  };

  it('streams-with-a-login: exactly once, over TLS and SCRAM-SHA-512', async () => {
    const actions = liveEvents({ events: 1_000, users: 50 });
    await world.produce(actions);
    const instance = await world.start('a');
    await world.untilConsumed(actions.length);
    const { problems, maxDelta } = await world.verify(actions);
    expect(problems).toEqual([]);
    expect(maxDelta).toBeLessThanOrEqual(1e-4);
    expect(await instance.stop()).toBe(0);
    expect(instance.log).not.toContain(broker.connection().sasl!.password);
  });

  it('streams-with-tokens: by OAUTHBEARER, logged in again before a token ends', async () => {
    const secret = 'the-client-secret';
    let asked = 0;
    // Tokens that the broker takes unsigned, as Kafka allows for development: header, claims, no signature.
    const endpoint = createServer((request, response) => {
      const told = Buffer.from(request.headers.authorization?.replace('Basic ', '') ?? '', 'base64').toString();
      if (told !== `${PIPELINE_USER}:${secret}`) return response.writeHead(401).end('{"error":"invalid_client"}');
      asked++;
      const nowS = Math.floor(Date.now() / 1000);
      const part = (claims: object) => Buffer.from(JSON.stringify(claims)).toString('base64url');
      const token = `${part({ alg: 'none' })}.${part({ sub: PIPELINE_USER, iat: nowS, exp: nowS + LIFE_S })}.`;
      return response.end(JSON.stringify({ access_token: token, expires_in: LIFE_S, token_type: 'Bearer' }));
    });
    await new Promise<void>((resolve) => endpoint.listen(0, '127.0.0.1', resolve));
    const tokenUrl = `http://127.0.0.1:${(endpoint.address() as AddressInfo).port}/token`;
    const login = (clientSecret: string) => ({
      mechanism: 'oauthbearer',
      clientCredentials: { tokenUrl, clientId: PIPELINE_USER, clientSecret },
    });
    const { brokers, ssl } = broker.connection();
    const connection = () => ({ brokers, ssl, sasl: login(secret) });
    const name = randomName('tokens');
    const tokens = await LiveWorld.create({
      broker: { connection } as never,
      name,
      bundlePath: bundle.path,
      bundle: bundle.bundle,
    });
    try {
      const actions = liveEvents({ events: 600, users: 50 });
      await tokens.produce(actions.slice(0, 300));
      const instance = await tokens.start('a');
      await tokens.untilConsumed(300);
      const before = asked;
      await new Promise((resolve) => setTimeout(resolve, 1000 * LIFE_S));
      await tokens.produce(actions.slice(300));
      await tokens.untilConsumed(600);
      expect(asked).toBeGreaterThan(before);
      const { problems } = await tokens.verify(actions);
      expect(problems).toEqual([]);
      expect(await instance.stop()).toBe(0);
      expect(instance.log).not.toContain(secret);
      expect(instance.log).not.toMatch(/"level":"error"/);
      const refused = await runWith({ brokers, ssl, sasl: login('another') } as never);
      expect(refused.code).toBe(2);
      expect(refused.stderr).toMatch(/KAFKA_AUTHENTICATION .*answered 401: invalid_client/);
      expect(refused.seconds).toBeLessThan(15);
    } finally {
      await tokens.close();
      endpoint.close();
    }
  });

  it('a-wrong-password-is-said-and-not-tried-for-ever', async () => {
    const { code, stderr, seconds } = await runWith(broker.connection(ADMIN, 'not-the-password'));
    expect(code).toBe(2);
    expect(stderr).toMatch(/KAFKA_AUTHENTICATION .*check kafka\.sasl/);
    expect(stderr).not.toContain('not-the-password');
    expect(seconds).toBeLessThan(15);
  });

  it('a-missing-acl-is-said-and-not-tried-for-ever', async () => {
    const { code, stderr, seconds } = await runWith(broker.connection(OUTSIDER));
    expect(code).toBe(2);
    expect(stderr).toMatch(/KAFKA_AUTHORIZATION .*ACL: TOPIC_AUTHORIZATION_FAILED/);
    expect(seconds).toBeLessThan(15);
  });

  it('a-right-that-is-taken-away-is-said: within seconds the instance has failed and ended, with 2', async () => {
    const { userActions } = world.config.kafka.topics;
    const instance = await world.start('a');
    await instance.untilRunning();
    const { AclOperationTypes, AclPermissionTypes, AclResourceTypes, ResourcePatternTypes } = kafkajs;
    const denied = {
      resourceType: AclResourceTypes.TOPIC,
      resourceName: userActions,
      resourcePatternType: ResourcePatternTypes.LITERAL,
      principal: `User:${PIPELINE_USER}`,
      host: '*',
      operation: AclOperationTypes.READ,
      permissionType: AclPermissionTypes.DENY,
    };
    const admin = kafkaClient({ ...world.config.kafka, ...broker.connection(ADMIN) } as never).admin();
    await admin.connect();
    await admin.createAcls({ acl: [denied] });
    const began = performance.now();
    try {
      expect(await instance.ended(20_000)).toBe(2);
      expect(performance.now() - began).toBeLessThan(15_000);
      expect(instance.log).toMatch(/KAFKA_AUTHORIZATION[^\n]*TOPIC_AUTHORIZATION_FAILED/);
    } finally {
      await admin.deleteAcls({ filters: [denied] });
      await admin.disconnect();
    }
  });

  it('an-expired-certificate-is-said-and-not-tried-for-ever', async () => {
    await broker.stop();
    broker = await startKafka({ folder: broker.folder, certificate: 'expired' });
    const { code, stderr, seconds } = await runWith(broker.connection());
    expect(code).toBe(2);
    expect(stderr).toMatch(/KAFKA_AUTHENTICATION .*certificate.*expired/);
    expect(seconds).toBeLessThan(15);
  });
});
