/** A schema registry over HTTP, as far as we use one: what is registered, who may ask, and faults on demand. */
import { createServer, type IncomingMessage } from 'node:http';
import type { AddressInfo } from 'node:net';

export interface StubSchema {
  readonly schema: string;
  readonly schemaType?: string;
  readonly references?: readonly { readonly name: string; readonly subject: string; readonly version: number }[];
}

export interface SchemaRegistryStub {
  readonly url: string;
  /** Every request: method and path. */
  readonly requests: string[];
  /** Schemas by id. */
  readonly byId: Map<number, StubSchema>;
  /** Versions by subject; version 1 is the first. */
  readonly bySubject: Map<string, StubSchema[]>;
  /** Answers of this status come first, one a request: 503, 429, or 0 to cut the connection. */
  readonly faults: number[];
  /** `user:password` that is asked for. */
  credentials: string | undefined;
  /** Subjects that take no new schema: 409. */
  readonly incompatible: Set<string>;
  /** Answers wait for so long, ms. */
  delayMs: number;
  readonly close: () => Promise<void>;
}

export async function startSchemaRegistryStub(): Promise<SchemaRegistryStub> {
  const server = createServer(async (request, response) => {
    const path = decodeURIComponent(request.url ?? '');
    stub.requests.push(`${request.method} ${path}`);
    const body = await bodyOf(request);
    if (stub.delayMs > 0) await new Promise((done) => setTimeout(done, stub.delayMs));
    const fault = stub.faults.shift();
    if (fault === 0) return request.socket.destroy();
    const [status, answer] =
      fault === undefined ? answerTo(stub, request, path, body) : [fault, { message: 'a fault on demand' }];
    response.writeHead(status, { 'content-type': 'application/vnd.schemaregistry.v1+json' });
    response.end(JSON.stringify(answer));
  });
  await new Promise<void>((done) => server.listen(0, '127.0.0.1', done));
  const stub: SchemaRegistryStub = {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    requests: [],
    byId: new Map(),
    bySubject: new Map(),
    faults: [],
    credentials: undefined,
    incompatible: new Set(),
    delayMs: 0,
    close: () =>
      new Promise((done) => {
        server.close(() => done());
        server.closeAllConnections();
      }),
  };
  return stub;
}

function answerTo(stub: SchemaRegistryStub, request: IncomingMessage, path: string, body: string): [number, unknown] {
  if (stub.credentials !== undefined) {
    const expected = `Basic ${Buffer.from(stub.credentials).toString('base64')}`;
    if (request.headers.authorization !== expected) return [401, { error_code: 401, message: 'Unauthorized' }];
  }
  const [, id] = /^\/schemas\/ids\/(\d+)$/.exec(path) ?? [];
  if (id !== undefined) {
    const schema = stub.byId.get(Number(id));
    return schema === undefined ? [404, { error_code: 40403, message: 'Schema not found' }] : [200, schema];
  }
  const [, subject, version] = /^\/subjects\/([^/]+)\/versions(?:\/(\d+|latest))?$/.exec(path) ?? [];
  if (subject === undefined) return [404, { error_code: 404, message: 'HTTP 404 Not Found' }];
  const versions = stub.bySubject.get(subject) ?? [];
  if (version !== undefined) {
    const schema = version === 'latest' ? versions.at(-1) : versions[Number(version) - 1];
    return schema === undefined ? [404, { error_code: 40402, message: 'Version not found' }] : [200, schema];
  }
  if (stub.incompatible.has(subject)) return [409, { error_code: 409, message: 'Schema being registered is incompatible' }];
  const schema = JSON.parse(body) as StubSchema;
  const known = [...stub.byId].find(([, { schema: text }]) => text === schema.schema);
  const assigned = known?.[0] ?? stub.byId.size + 1;
  stub.byId.set(assigned, schema);
  stub.bySubject.set(subject, [...versions, schema]);
  return [200, { id: assigned }];
}

async function bodyOf(request: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = [];
  for await (const chunk of request) chunks.push(chunk as Buffer);
  return Buffer.concat(chunks).toString();
}
