/** The vectors of what a stream serves, for questions that compare with them: stored when a model begins to serve. */
import { connect } from '../../infra/clickhouse/connect.ts';
import { storeEntityVectors } from '../../infra/clickhouse/entity-vectors.ts';
import type { Logger } from '../../infra/telemetry/log.ts';
import type { Bundle } from '../../models/hstu/bundle.ts';
import type { Config } from '../../schemas/config.ts';
import { entityVectorsOf } from '../entity-vectors-of.ts';

/** Never throws: the stream goes on without them, and a question stores those of the model that it is asked with. */
export async function storeServedVectors(config: Config, bundle: Bundle, logger: Logger): Promise<void> {
  try {
    const clickhouse = await connect(config.clickhouse);
    try {
      await storeEntityVectors(clickhouse, entityVectorsOf(bundle));
    } finally {
      await clickhouse.close();
    }
  } catch (error) {
    logger.warn({ err: error, digest: bundle.digest }, 'the vectors of the model that is served were not stored');
  }
}
