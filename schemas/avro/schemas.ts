/** The schemas of our own topics, and where the schema behind an id is found: fixed ids here, a registry's ids elsewhere. */
import { readFileSync } from 'node:fs';
import { SUPERSEDED_SCHEMAS } from './superseded-schemas.ts';

export const RECORD_NAMES = [
  'UserAction',
  'CandidateRequest',
  'Erasure',
  'UserEmbedding',
  'CandidateScores',
  'DeadLetter',
  'ActionOutcome',
  'Entity',
] as const;
export type RecordName = (typeof RECORD_NAMES)[number];

const textOf = (file: string): string => readFileSync(new URL(`./${file}.avsc`, import.meta.url), 'utf8');

/** The schemas that we write and read, as the text of their `.avsc` files. */
export const SCHEMA_TEXTS: Readonly<Record<RecordName, string>> = {
  UserAction: textOf('user-action'),
  CandidateRequest: textOf('candidate-request'),
  Erasure: textOf('erasure'),
  UserEmbedding: textOf('user-embedding'),
  CandidateScores: textOf('candidate-scores'),
  DeadLetter: textOf('dead-letter'),
  ActionOutcome: textOf('action-outcome'),
  Entity: textOf('entity'),
};

/**
 * Ids of our schemas without a registry: `HS`, the record's number, the schema's version, a byte each pair. A registry counts
 * up from 1 and never comes near, so that records written before there was one stay readable after.
 *
 * Constant for ever: a changed schema gets a new id, and the old one keeps its text (`SUPERSEDED_SCHEMAS`).
 */
export const FIXED_SCHEMA_IDS: Readonly<Record<RecordName, number>> = {
  UserAction: 0x48_53_01_01,
  CandidateRequest: 0x48_53_02_03,
  Erasure: 0x48_53_03_01,
  UserEmbedding: 0x48_53_04_01,
  CandidateScores: 0x48_53_05_02,
  DeadLetter: 0x48_53_06_02,
  ActionOutcome: 0x48_53_07_01,
  Entity: 0x48_53_08_02,
};

/** A schema that somebody wrote records with. */
export interface WriterSchema {
  /** JSON text of the schema. */
  readonly text: string;
  /** Texts of the schemas it refers to by name, each after those that it refers to itself. */
  readonly references?: readonly string[];
  /** @default 'AVRO' */
  readonly schemaType?: string;
}

/** Knows the schemas behind ids, at once: whatever has to be fetched was fetched before. A registry's client is one. */
export interface SchemaDirectory {
  /** The schema of an id, or undefined for an id that it does not know. An id never changes its schema. */
  find(id: number): WriterSchema | undefined;
  /** The id under which records of ours are written. */
  idOf(name: RecordName): number;
}

const FIXED_SCHEMAS: ReadonlyMap<number, WriterSchema> = new Map([
  ...[...SUPERSEDED_SCHEMAS].map(([id, text]) => [id, { text }] as const),
  ...RECORD_NAMES.map((name) => [FIXED_SCHEMA_IDS[name], { text: SCHEMA_TEXTS[name] }] as const),
]);

/** The directory without a registry; a registry's directory answers for these ids as well. */
export const fixedSchemas: SchemaDirectory = {
  find: (id) => FIXED_SCHEMAS.get(id),
  idOf: (name) => FIXED_SCHEMA_IDS[name],
};
