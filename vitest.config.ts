import { availableParallelism } from 'node:os';
import { defineConfig } from 'vitest/config';

/** Of the integration tests; the others start a broker and its clients, which need the cores there are: one file after the other. */
const WITHOUT_BROKER = 'clickhouse-*|command-line|demo-ranking|score-command';
const WITH_BROKER = [`test/integration/!(${WITHOUT_BROKER}).test.ts`, 'test/outside/*.test.ts'];

const common = {
  environment: 'node' as const,
  testTimeout: 60_000,
  hookTimeout: 60_000,
  pool: 'forks' as const,
};

export default defineConfig({
  test: {
    globalSetup: ['test/support/compiled-cli.ts', 'test/support/kafka-setup.ts', 'test/support/swiftshader.ts'],
    projects: [
      {
        test: {
          ...common,
          name: 'parallel',
          include: ['test/**/*.test.ts'],
          exclude: WITH_BROKER,
          maxWorkers: availableParallelism(),
          sequence: { groupOrder: 0 },
        },
      },
      {
        test: {
          ...common,
          name: 'broker',
          include: WITH_BROKER,
          maxWorkers: 2,
          sequence: { groupOrder: 1 },
        },
      },
    ],
  },
});
