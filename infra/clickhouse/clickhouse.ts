/** A handle on ClickHouse, server or embedded: what the rest of this folder is written against. */

export interface ClickHouse {
  readonly database: string;
  /** The URL or the folder, for messages; never a password. */
  readonly where: string;
  /** Process id of the embedded engine; undefined for a server. */
  readonly enginePid: number | undefined;
  /** Rows of a query; 64-bit integers come as numbers, times as text. */
  readonly rows: <T>(sql: string, params?: Readonly<Record<string, unknown>>) => Promise<T[]>;
  readonly command: (sql: string, params?: Readonly<Record<string, unknown>>) => Promise<void>;
  /** The answer to a query that names its own FORMAT, as it is. */
  readonly bytes: (sql: string) => Promise<Uint8Array>;
  /** Inserts rows, each written as a JSON array in the order of `columns`; on return they are stored. */
  readonly insert: (table: string, columns: readonly string[], jsonRows: readonly string[]) => Promise<void>;
  readonly close: () => Promise<void>;
}
