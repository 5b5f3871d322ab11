/** All commands. */
import type { Command } from 'commander';
import { addDemo } from './demo.ts';
import { addDoctor } from './doctor.ts';
import { addDown } from './down.ts';
import { addEncode } from './encode.ts';
import { addExplain } from './explain.ts';
import { addModel } from './model.ts';
import { addQuery } from './query.ts';
import { addReplay } from './replay.ts';
import { addStatus } from './status.ts';
import { addUp } from './up.ts';

export function addCommands(program: Command): void {
  for (const add of [addDemo, addReplay, addEncode, addQuery, addModel, addExplain, addDoctor, addUp, addDown, addStatus])
    add(program);
}
