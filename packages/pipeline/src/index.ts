export { type ApplyPlanOptions, applyPlan } from "./apply-plan.ts";
export { type EvaluateExportOptions, evaluateExport } from "./evaluate-export.ts";
export type { OnPipelineEvent, PipelineEvent, Stage } from "./events.ts";
export {
  CALIBRATION_SAMPLES,
  type ExportedFile,
  type ExportOptions,
  exportModel,
  fileName,
  onnxFiles,
  type Precision,
} from "./export.ts";
export { type ExportDirectoryOptions, writeExport } from "./export-directory.ts";
export { type Inspection, inspect, type LayerInspection } from "./inspect.ts";

export {
  createTiming,
  type Latency,
  type Machine,
  measureLatencies,
  type OpenModel,
  type Timed,
  type TimedModel,
  type Timing,
  undisturbed,
} from "./latency.ts";
export {
  type LatencyOutcome,
  type LatencyPromise,
  latencyOutcome,
} from "./latency-budget.ts";
export {
  decodeLatencyTable,
  LATENCY_TABLE,
  type LatencyTable,
  predictLatency,
} from "./latency-table.ts";
export {
  type MeasureOptions,
  measureOperations,
  type OperationTime,
} from "./measure-operations.ts";
export { expectEmpty } from "./output-directory.ts";
export { expectPlugins, loadPlugins } from "./plugins.ts";
export {
  type EvaluationRecord,
  type LatencyRecord,
  type PruneRequest,
  type PruneResult,
  prune,
  type SizeRecord,
} from "./prune.ts";
export {
  type PrunedGroup,
  type PruningRecord,
  type PruningRound,
  readPruning,
} from "./pruning-record.ts";
export {
  type BudgetPlan,
  type BudgetsRecord,
  decodeDecisions,
  decodeSensitivity,
  encodeBudgets,
  encodePlan,
  encodeRuns,
  encodeSensitivity,
  type GroupPlan,
  type GroupRecord,
  type PlanRecord,
  type SensitivityRecord,
} from "./records.ts";
export type { RunContext } from "./run-context.ts";
export {
  FINAL_MODEL,
  MANIFEST,
  type Manifest,
  type OpenRunOptions,
  RunDirectory,
} from "./run-directory.ts";
export { saveModel } from "./save-model.ts";
export { type ScoreRequest, scoreModel } from "./score.ts";
export {
  budgetShares,
  type Compensation,
  defaultPlan,
  defaultPruning,
  defaultSensitivity,
  defaultTemperatures,
  defaultTextTuning,
  defaultTuning,
  defaultTuningOf,
  type ImplantStart,
  type PlanSettings,
  type PruneSettings,
  type SensitivitySettings,
  type TuneSettings,
} from "./settings.ts";
export { freshNetwork, type LoadedSource, loadSource, readModelConfig } from "./source.ts";
export { type OpenTaskOptions, openTask, type Task } from "./task.ts";
export { type TrainModelResult, type TrainRequest, trainModel } from "./train-model.ts";
export { COMPACT, OWN_CONFIG, PYTORCH } from "./transformers-files.ts";
