/** Whether a writer's schema has what a mapping names: a field that no record has makes all of them dead letters, or all without a value. */
import type { Type, types } from 'avsc';
import { messageOf } from '../errors.ts';
import type { RecordMapping } from '../mapping-config.ts';
import { neededPaths } from '../record-mapping.ts';
import { writerType } from './avro-types.ts';
import type { WriterSchema } from './schemas.ts';

/** One line a path that records of this schema cannot have, or that the schema is none; empty where all is there. */
export function fieldsNotIn(writer: WriterSchema, mapping: RecordMapping): string[] {
  let type: Type;
  try {
    type = writerType(writer);
  } catch (thrown) {
    return [`the schema is not one of Avro: ${messageOf(thrown)}`];
  }
  return neededPaths(mapping).flatMap(({ key, path }) => {
    const problem = problemOf(type, path.split('.'));
    return problem === undefined ? [] : [`mapping.${key}: field '${path}': ${problem}`];
  });
}

/** Undefined where a value of the type may have the path. */
function problemOf(type: Type, [step, ...rest]: readonly string[]): string | undefined {
  if (step === undefined) return undefined;
  switch (type.typeName) {
    case 'union:wrapped':
    case 'union:unwrapped': {
      const problems = (type as types.UnwrappedUnionType).types.map((branch) => problemOf(branch, [step, ...rest]));
      if (problems.includes(undefined)) return undefined;
      // Of a branch with fields, rather than of null.
      return problems[(type as types.UnwrappedUnionType).types.findIndex(({ typeName }) => typeName !== 'null')];
    }
    case 'map':
      return problemOf((type as { readonly valuesType: Type } & Type).valuesType, rest);
    case 'record': {
      const { fields } = type as types.RecordType;
      const field = fields.find(({ name }) => name === step);
      if (field !== undefined) return problemOf(field.type, rest);
      return `the record ${type.name ?? ''} has no '${step}', but ${fields.map(({ name }) => name).join(', ')}`;
    }
    default:
      return `a ${type.typeName} has no field '${step}'`;
  }
}
