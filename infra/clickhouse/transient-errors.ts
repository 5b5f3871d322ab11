/** Which failures of ClickHouse are worth another attempt. */
import { ClickHouseError } from '@clickhouse/client';
import { PipelineError } from '../../schemas/errors.ts';

/** Overload, timeouts, a replica that is just not there: the same request may succeed later. */
const TRANSIENT_CODES = new Set([
  '159', // TIMEOUT_EXCEEDED
  '164', // READONLY
  '202', // TOO_MANY_SIMULTANEOUS_QUERIES
  '203', // NO_FREE_CONNECTION
  '209', // SOCKET_TIMEOUT
  '210', // NETWORK_ERROR
  '225', // NO_ZOOKEEPER
  '236', // ABORTED
  '241', // MEMORY_LIMIT_EXCEEDED
  '242', // TABLE_IS_READ_ONLY
  '243', // NOT_ENOUGH_SPACE
  '252', // TOO_MANY_PARTS
  '319', // UNKNOWN_STATUS_OF_INSERT
  '394', // QUERY_WAS_CANCELLED
  '425', // SYSTEM_ERROR
  '999', // KEEPER_EXCEPTION
]);

/** Faults of the rows or the tables are not: they would fail again. Everything below SQL (sockets, timeouts) is. */
export function isTransient(error: unknown): boolean {
  if (error instanceof PipelineError) return error.code === 'STORE_UNAVAILABLE';
  return error instanceof ClickHouseError ? TRANSIENT_CODES.has(error.code) : error instanceof Error;
}
