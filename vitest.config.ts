import { availableParallelism } from 'node:os';
import { defineConfig } from 'vitest/config';

/** Tests that start servers: a broker and its clients already take the cores there are, and must answer in time. */
const WITH_SERVERS = ['test/integration/**/*.test.ts'];

const common = {
  environment: 'node' as const,
  testTimeout: 60_000,
  hookTimeout: 60_000,
  pool: 'forks' as const,
};

export default defineConfig({
  test: {
    globalSetup: ['test/support/kafka-setup.ts', 'test/support/swiftshader.ts'],
    projects: [
      {
        test: {
          ...common,
          name: 'units',
          include: ['test/**/*.test.ts'],
          exclude: WITH_SERVERS,
          maxWorkers: availableParallelism(),
          sequence: { groupOrder: 0 },
        },
      },
      { test: { ...common, name: 'servers', include: WITH_SERVERS, maxWorkers: 1, sequence: { groupOrder: 1 } } },
    ],
  },
});
