import type { LocalKafka } from '../../infra/kafka/broker/local-kafka.ts';
import type { Bundle } from '../../models/hstu/bundle.ts';
import type { LiveWorld, LiveWorldOptions } from '../../test/support/live-world.ts';
import type { Shown } from '../../test/support/promises/promise.ts';

/** A promise, and what it is shown in. */
export interface Promised {
  readonly settings?: LiveWorldOptions['settings'] | ((name: string) => LiveWorldOptions['settings']);
  readonly brokers?: 1 | 3;
  /** @default a small one of one kind of action */
  readonly bundle?: () => Promise<{ readonly path: string; readonly bundle: Bundle }>;
  /** What was published is read by Java's consumer, not by the product's. @default false */
  readonly readByJava?: boolean;
  readonly show: (world: LiveWorld, cluster: LocalKafka, bundle: Bundle) => Promise<Shown>;
}
