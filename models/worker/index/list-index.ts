/** Which catalogues are listed by an index, and its file: made once for a model, by a thread of its own, kept for the next start. */
import { statSync } from 'node:fs';
import { join } from 'node:path';
import type { Worker } from 'node:worker_threads';
import { messageOf } from '../../../schemas/errors.ts';
import { CandidateIndex, INDEX_VERSION } from '../../catalogue/candidate-index.ts';
import type { Bundle } from '../../hstu/bundle.ts';
import { spawnIndexBuild } from '../spawn.ts';

/** `auto`: by an index where the vocabulary is above 100,000 entities. */
export type IndexChoice = 'exact' | 'auto' | 'hnsw';

export interface ListIndexOptions {
  readonly choice: IndexChoice;
  /** Of index files. */
  readonly folder: string;
}

/** What lists are made by from now on. */
export type IndexReport =
  | {
      readonly rows: number;
      readonly bytes: number /** That its building took; 0 where its file was there. */;
      readonly seconds: number;
    }
  | { readonly failed: string };

/** From so many rows on a scan of them takes longer than the rest of a step (docs/decisions/005). */
const AUTO_ABOVE = 100_000;

export class ListIndex {
  readonly file: string;
  readonly #bundle: Bundle;
  #thread: Worker | undefined;
  #closed = false;

  private constructor(bundle: Bundle, folder: string) {
    this.#bundle = bundle;
    this.file = join(folder, `${bundle.digest.slice(0, 32)}.${INDEX_VERSION}`);
  }

  /** Undefined where lists are to be exact. */
  static of(bundle: Bundle, { choice, folder }: ListIndexOptions): ListIndex | undefined {
    const wanted = choice === 'hnsw' || (choice === 'auto' && bundle.config.vocabularySize > AUTO_ABOVE);
    return wanted ? new ListIndex(bundle, folder) : undefined;
  }

  /** Once `file` is there; undefined where it was closed before. Never rejects. */
  async make(): Promise<IndexReport | undefined> {
    const began = performance.now();
    try {
      if (this.#isThere()) return this.#report(0);
      await this.#build();
      return this.#closed ? undefined : this.#report((performance.now() - began) / 1000);
    } catch (thrown) {
      return this.#closed ? undefined : { failed: messageOf(thrown) };
    }
  }

  /** Ends a build that is under way. */
  async close(): Promise<void> {
    this.#closed = true;
    await this.#thread?.terminate();
  }

  #isThere(): boolean {
    const { dimension, vocabularySize } = this.#bundle.config;
    try {
      return CandidateIndex.open(this.file, dimension).size === vocabularySize;
    } catch {
      return false;
    }
  }

  #build(): Promise<unknown> {
    const { dimension, vocabularySize } = this.#bundle.config;
    const { data } = this.#bundle.tensors.get('entity_embedding')!;
    const rows = data.slice(0, (vocabularySize + 1) * dimension);
    const thread = spawnIndexBuild({ table: { rows, dimension }, file: this.file });
    this.#thread = thread;
    return new Promise((resolve, reject) => {
      thread.once('message', resolve);
      thread.once('error', reject);
      thread.once('exit', (code) => reject(new Error(`the thread that builds it ended with ${code}`)));
    });
  }

  #report(seconds: number): IndexReport {
    return { rows: this.#bundle.config.vocabularySize, bytes: statSync(this.file).size, seconds };
  }
}
