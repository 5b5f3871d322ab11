/** All commands. */
import type { Command } from 'commander';
import { addDemo } from './demo.ts';
import { addDoctor } from './doctor.ts';
import { addDown } from './down.ts';
import { addEncode } from './encode.ts';
import { addErase } from './erase.ts';
import { addExplain } from './explain.ts';
import { addModel } from './model.ts';
import { addPlan } from './plan.ts';
import { addProduce } from './produce.ts';
import { addQuery } from './query.ts';
import { addReplay } from './replay.ts';
import { addReset } from './reset.ts';
import { addRun } from './run.ts';
import { addRuns } from './runs.ts';
import { addSchemas } from './schemas.ts';
import { addScore } from './score.ts';
import { addSink } from './sink.ts';
import { addSkip } from './skip.ts';
import { addStatus } from './status.ts';
import { addTopics } from './topics.ts';
import { addUp } from './up.ts';

export function addCommands(program: Command): void {
  const commands = [
    addDemo,
    addRun,
    addSink,
    addReplay,
    addRuns,
    addEncode,
    addScore,
    addQuery,
    addTopics,
    addSchemas,
    addProduce,
    addReset,
    addSkip,
    addErase,
    addModel,
    addPlan,
    addExplain,
    addDoctor,
    addUp,
    addDown,
    addStatus,
  ];
  for (const add of commands) add(program);
}
