/** @file What every run works with. */
import type { ModelFamily } from "@espalier/core";
import type { Executor } from "@espalier/graph";
import type { OnPipelineEvent } from "./events.ts";
import type { Task } from "./task.ts";

export interface RunContext {
  readonly families: readonly ModelFamily[];
  /** Where families beyond the usual ones come from, as `loadPlugins` takes them; default: none. */
  readonly plugins?: readonly string[] | undefined;
  readonly executor: Executor;
  readonly task: Task;
  readonly signal?: AbortSignal | undefined;
  readonly onEvent?: OnPipelineEvent;
}
