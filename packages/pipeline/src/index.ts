export type { OnPipelineEvent, PipelineEvent, Stage } from "./events.ts";
export { exportModel } from "./export.ts";
export { type Inspection, inspect, type LayerInspection } from "./inspect.ts";
export { type Latency, measureLatencies, type Timed } from "./latency.ts";
export {
  type EvaluationRecord,
  type LatencyRecord,
  type Machine,
  type PruneRequest,
  type PruneResult,
  prune,
  type RunContext,
  type SizeRecord,
  sensitivityOf,
  type Timing,
} from "./prune.ts";
export {
  decodeDecisions,
  decodeSensitivity,
  encodePlan,
  encodeSensitivity,
  type GroupPlan,
  type GroupRecord,
  type PlanRecord,
  type SensitivityRecord,
} from "./records.ts";
export {
  FINAL_MODEL,
  MANIFEST,
  type Manifest,
  type OpenRunOptions,
  RunDirectory,
} from "./run-directory.ts";
export { expectEmpty, saveModel } from "./save-model.ts";
export {
  defaultPlan,
  defaultPruning,
  defaultSensitivity,
  defaultTextTuning,
  defaultTuning,
  defaultTuningOf,
  type ImplantStart,
  type PruneSettings,
  type SensitivitySettings,
  type TuneSettings,
} from "./settings.ts";
export { type LoadedSource, loadSource } from "./source.ts";
export { type OpenTaskOptions, openTask, type Task } from "./task.ts";
export { type TrainModelResult, type TrainRequest, trainModel } from "./train-model.ts";
