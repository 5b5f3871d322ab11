/**
 * Client of a Confluent-compatible schema registry: fetches the schemas of records before they are decoded, because decoding
 * itself is synchronous, and registers those that we write.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import {
  fixedSchemas,
  type RecordName,
  SCHEMA_TEXTS,
  type SchemaDirectory,
  type WriterSchema,
} from '../../schemas/avro/schemas.ts';
import { messageOf, PipelineError } from '../../schemas/errors.ts';
import { RegistryResponseError, requestJson } from './registry-request.ts';

export interface SchemaRegistryOptions {
  /** Base address; a user and password in it are taken for `username` and `password`. */
  readonly url: string;
  readonly username?: string | undefined;
  readonly password?: string | undefined;
  /** One request, ms. @default 5000 */
  readonly requestTimeoutMs?: number;
  /** Further tries after a network fault, 429 or 5xx. @default 4 */
  readonly retries?: number;
  /** Wait before the second try, ms; each further one waits twice as long, at most 2 s. @default 100 */
  readonly retryDelayMs?: number;
  /** How long an id that the registry does not have is taken for unknown, ms. @default 30000 */
  readonly unknownForMs?: number;
  /** Ends requests and waits: a shutdown need not sit out the tries. */
  readonly signal?: AbortSignal;
  /** The clock, ms since the epoch. @default Date.now */
  readonly now?: () => number;
}

interface SchemaResponse {
  readonly schema: string;
  readonly schemaType?: string;
  readonly references?: readonly { readonly subject: string; readonly version: number }[];
}

/** Requests at once: a batch of garbage may name hundreds of ids. */
const MAX_CONCURRENT = 8;
/** Unknown ids remembered at most. */
const MAX_UNKNOWN = 10_000;
/** Schemas that one schema may refer to, directly or not. */
const MAX_REFERENCES = 100;

export class SchemaRegistry implements SchemaDirectory {
  readonly #options: SchemaRegistryOptions & { readonly retries: number; readonly retryDelayMs: number };
  readonly #base: string;
  readonly #headers: Record<string, string> = { accept: 'application/vnd.schemaregistry.v1+json' };
  readonly #schemas = new Map<number, WriterSchema>();
  /** Id → when to ask again, oldest first. */
  readonly #unknownUntil = new Map<number, number>();
  readonly #inFlight = new Map<number, Promise<void>>();
  readonly #registered = new Map<RecordName, number>();

  /** @throws PipelineError `CONFIG_INVALID` for an address that is none */
  constructor(options: SchemaRegistryOptions) {
    this.#options = { retries: 4, retryDelayMs: 100, ...options };
    const url = URL.canParse(options.url) ? new URL(options.url) : undefined;
    if (url === undefined || !/^https?:$/.test(url.protocol))
      throw new PipelineError('CONFIG_INVALID', 'kafka.schemaRegistry.url is no http or https address');
    const username = options.username ?? decodeURIComponent(url.username);
    const password = options.password ?? decodeURIComponent(url.password);
    // Never in a message: neither here nor in what is fetched.
    this.#base = `${url.origin}${url.pathname.replace(/\/+$/, '')}`;
    if (username !== '') this.#headers['authorization'] = `Basic ${Buffer.from(`${username}:${password}`).toString('base64')}`;
  }

  find(id: number): WriterSchema | undefined {
    return this.#schemas.get(id) ?? fixedSchemas.find(id);
  }

  /** The registered id, or the fixed one of a record that was not registered. */
  idOf(name: RecordName): number {
    return this.#registered.get(name) ?? fixedSchemas.idOf(name);
  }

  /**
   * Fetches the schemas that are not here yet. An id that the registry does not have is no error: `find` does not know it, and
   * its records become dead letters; it is asked for again after `unknownForMs`.
   *
   * @throws PipelineError `KAFKA_UNAVAILABLE` (retriable: wait, and call again), `KAFKA_AUTHENTICATION`, `KAFKA_AUTHORIZATION`
   */
  async ensure(ids: Iterable<number>): Promise<void> {
    const wanted = [...new Set(ids)].filter((id) => this.#isWanted(id));
    const lanes = Array.from({ length: Math.min(MAX_CONCURRENT, wanted.length) }, async () => {
      for (let id = wanted.pop(); id !== undefined; id = wanted.pop()) await this.#fetchOnce(id);
    });
    const results = await Promise.allSettled(lanes);
    for (const result of results) if (result.status === 'rejected') throw result.reason;
  }

  /**
   * Registers our schemas for the topics that we write, under the subject `<topic>-value`; `idOf` tells their ids from then on.
   *
   * @throws PipelineError `CONFIG_INVALID` where the registry refuses a schema (incompatible with the subject's), and as `ensure`
   */
  async register(topics: Readonly<Partial<Record<RecordName, string>>>): Promise<void> {
    for (const [name, topic] of Object.entries(topics) as [RecordName, string][]) {
      const subject = `${topic}-value`;
      const what = `registering ${name} under subject '${subject}'`;
      const body = JSON.stringify({ schema: SCHEMA_TEXTS[name] });
      const { id } = (await this.#request(`/subjects/${encodeURIComponent(subject)}/versions`, what, body)) as { id?: unknown };
      if (!Number.isInteger(id)) throw new PipelineError('KAFKA_UNAVAILABLE', `${what}: ${this.#base} answered without an id`);
      this.#registered.set(name, id as number);
      this.#schemas.set(id as number, { text: SCHEMA_TEXTS[name] });
    }
  }

  /**
   * The newest schema of a subject; undefined where it has none.
   *
   * @throws PipelineError as `ensure`
   */
  async latest(subject: string): Promise<WriterSchema | undefined> {
    const path = `/subjects/${encodeURIComponent(subject)}/versions/latest`;
    const response = (await this.#request(path, `reading the newest schema of '${subject}'`)) as SchemaResponse | undefined;
    return response && this.#withReferences(response);
  }

  #isWanted(id: number): boolean {
    // A registry counts from 1: other ids are garbage, and not worth a request.
    if (id <= 0 || this.find(id) !== undefined) return false;
    const until = this.#unknownUntil.get(id);
    return until === undefined || until <= this.#now();
  }

  /** However many batches wait for an id, it is asked for once. */
  #fetchOnce(id: number): Promise<void> {
    const before = this.#inFlight.get(id);
    if (before !== undefined) return before;
    const fetching = this.#fetchSchema(id).finally(() => this.#inFlight.delete(id));
    this.#inFlight.set(id, fetching);
    return fetching;
  }

  async #fetchSchema(id: number): Promise<void> {
    const response = (await this.#request(`/schemas/ids/${id}`, `reading schema ${id}`)) as SchemaResponse | undefined;
    this.#unknownUntil.delete(id);
    if (response === undefined) {
      this.#unknownUntil.set(id, this.#now() + (this.#options.unknownForMs ?? 30_000));
      if (this.#unknownUntil.size > MAX_UNKNOWN) this.#unknownUntil.delete(this.#unknownUntil.keys().next().value!);
      return;
    }
    this.#schemas.set(id, await this.#withReferences(response));
  }

  async #withReferences(response: SchemaResponse): Promise<WriterSchema> {
    const references = new Map<string, string>();
    await this.#collectReferences(response, references);
    const { schema: text, schemaType = 'AVRO' } = response;
    return { text, schemaType, references: [...references.values()] };
  }

  /** Each schema after those that it refers to. */
  async #collectReferences({ references = [] }: SchemaResponse, found: Map<string, string>, depth = 0): Promise<void> {
    for (const { subject, version } of references) {
      const key = `${subject}/${version}`;
      if (found.has(key) || found.size >= MAX_REFERENCES || depth >= MAX_REFERENCES) continue;
      const path = `/subjects/${encodeURIComponent(subject)}/versions/${version}`;
      const response = (await this.#request(path, `reading schema ${key}`)) as SchemaResponse | undefined;
      if (response === undefined) continue;
      await this.#collectReferences(response, found, depth + 1);
      found.set(key, response.schema);
    }
  }

  /** What the registry answers; undefined for "not found". Tries again while that can help. */
  async #request(path: string, what: string, body?: string): Promise<unknown> {
    const { retries, retryDelayMs, requestTimeoutMs = 5_000, signal } = this.#options;
    for (let attempt = 0; ; attempt++) {
      try {
        return await requestJson(`${this.#base}${path}`, { headers: this.#headers, body, timeoutMs: requestTimeoutMs, signal });
      } catch (thrown) {
        const status = thrown instanceof RegistryResponseError ? thrown.status : undefined;
        if (status === 404 && body === undefined) return undefined;
        const passing = status === undefined || status === 429 || status >= 500;
        if (!passing || attempt >= retries || signal?.aborted) throw this.#error(thrown, status, what);
      }
      // Half of the wait by chance, so that instances do not come back together.
      const delayMs = Math.min(2_000, retryDelayMs * 2 ** attempt) * (0.5 + Math.random() / 2);
      await sleep(delayMs, undefined, signal === undefined ? {} : { signal }).catch(() => undefined);
    }
  }

  #error(thrown: unknown, status: number | undefined, what: string): PipelineError {
    const text = `${what}: the schema registry at ${this.#base} ${messageOf(thrown)}`;
    const error = (code: PipelineError['code'], hint: string) => new PipelineError(code, `${text} (${hint})`);
    if (status === 401) return error('KAFKA_AUTHENTICATION', 'check kafka.schemaRegistry: username, password');
    if (status === 403) return error('KAFKA_AUTHORIZATION', 'the user of kafka.schemaRegistry lacks the right');
    if (status === undefined || status === 429 || status >= 500)
      return error('KAFKA_UNAVAILABLE', 'check kafka.schemaRegistry.url, and that the registry is up');
    return error('CONFIG_INVALID', 'the registry refuses the request: see its compatibility setting for the subject');
  }

  #now(): number {
    return (this.#options.now ?? Date.now)();
  }
}
