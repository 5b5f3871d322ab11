/** Why a question has no answer: in a sentence, with what would give it one. */
import type { ClickHouse } from './clickhouse.ts';
import type { NamedQuery } from './queries.ts';

/** Names listed, at most. */
const LISTED = 5;

export async function whyNoRows(
  clickhouse: ClickHouse,
  { sql }: Pick<NamedQuery, 'sql'>,
  given: Readonly<Record<string, string>>,
): Promise<string> {
  const run = given['run_id'];
  if (run !== undefined) {
    const stored = await clickhouse.rows<{ run_id: string }>(
      'SELECT DISTINCT run_id FROM (SELECT run_id FROM actions UNION ALL SELECT run_id FROM embeddings_current UNION ALL SELECT run_id FROM embeddings)',
    );
    const runs = stored.map(({ run_id }) => run_id).sort();
    if (!runs.includes(run)) return `nothing is stored of run '${run}'; ${listed('stored are', runs)}`;
  }
  if (/\bFROM entities\b/.test(sql)) {
    const models = await clickhouse.rows<{ model_digest: string }>(
      `SELECT DISTINCT model_digest FROM embeddings_current WHERE ${run === undefined ? 'true' : 'run_id = {run:String}'} AND model_digest NOT IN (SELECT model_digest FROM entities)`,
      run === undefined ? {} : { run },
    );
    if (models.length > 0)
      return `${listed(
        'of these models the vectors of entities are not stored:',
        models.map(({ model_digest }) => model_digest.slice(0, 16)),
      )}; ask once with --set bundle=FOLDER for each`;
  }
  const asked = Object.entries(given).map(([name, value]) => `${name}=${value}`);
  return asked.length === 0 ? 'there is nothing of it yet' : `nothing matches ${asked.join(' ')}`;
}

const listed = (what: string, names: readonly string[]): string =>
  names.length === 0 ? `${what} none` : `${what} ${names.slice(0, LISTED).join(', ')}${names.length > LISTED ? ', …' : ''}`;
