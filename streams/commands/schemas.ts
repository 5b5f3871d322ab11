/** `hstu-streams schemas`: the Avro schemas of the deployment's records, for whoever writes or reads them. */
import { type Command, InvalidArgumentError } from 'commander';
import { printData } from '../../infra/console/guard-output.ts';
import { table } from '../../infra/console/table.ts';
import { FIXED_SCHEMA_IDS, RECORD_NAMES, type RecordName, SCHEMA_TEXTS } from '../../schemas/avro/schemas.ts';

const TOPICS: Readonly<Record<RecordName, string>> = {
  UserAction: 'in: userActions, without a mapping',
  CandidateRequest: 'in: candidateRequests',
  Erasure: 'in: erasures',
  UserEmbedding: 'out: userEmbeddings',
  CandidateScores: 'out: candidateScores',
  DeadLetter: 'out: deadLetters',
  ActionOutcome: 'out: actionOutcomes',
  Entity: 'in: entities',
};

export function addSchemas(program: Command): void {
  program
    .command('schemas')
    .description('the Avro schemas of the records that are read and written; with a name, that schema as JSON')
    .argument('[record]', RECORD_NAMES.join(', '), recordName)
    .action((record: RecordName | undefined) => {
      if (record !== undefined) return printData(SCHEMA_TEXTS[record].trimEnd());
      console.log(
        table(
          RECORD_NAMES.map((name) => ({
            record: name,
            'id without a registry': `0x${FIXED_SCHEMA_IDS[name].toString(16)}`,
            topic: TOPICS[name],
            says: (JSON.parse(SCHEMA_TEXTS[name]) as { readonly doc?: string }).doc?.split('. ')[0] ?? '',
          })),
        ),
      );
      console.log(
        'A value is a zero byte, the id (4 bytes, big-endian), and the Avro body. With kafka.schemaRegistry, ids are the registry’s.',
      );
    });
}

function recordName(text: string): RecordName {
  const found = RECORD_NAMES.find((name) => name.toLowerCase() === text.toLowerCase());
  if (found === undefined) throw new InvalidArgumentError(`one of ${RECORD_NAMES.join(', ')}`);
  return found;
}
