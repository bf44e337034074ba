export {
  type BatchOptions,
  forEachBatch,
  oneHot,
  prefetch,
  type SumOptions,
  sumOverBatches,
} from "./batches.ts";
export { bindParameters } from "./bind.ts";
export { checkConfig } from "./check-config.ts";
export { collectParameters, type NamedTensor } from "./collect-parameters.ts";
export { type CompensateOptions, compensate } from "./compensate.ts";
export {
  type ComponentGroup,
  type ComponentSelection,
  componentGroups,
  countComponents,
  type Decision,
  type Decisions,
  hasRank,
  implantRank,
  selectRows,
  sitesOf,
} from "./components.ts";
export {
  type EstimateEvent,
  type EstimateOptions,
  type Estimates,
  type Estimator,
  estimate,
  type Quantity,
} from "./estimate.ts";
export { fitBatch, type Prepared } from "./fit-batch.ts";
export { type Measure, measureNames, measures } from "./measures.ts";
export type {
  CheckpointSource,
  ComponentKind,
  Head,
  ImageInput,
  ImagePreprocessing,
  Layer,
  Mode,
  Model,
  ModelConfig,
  ModelFamily,
  ModelGraph,
  Normalization,
  Observed,
  Parameter,
  ParameterKind,
  ParameterSpec,
  Parameters,
  Preprocessing,
  RowSelection,
  SelectedRow,
  Shift,
  Site,
  TextInput,
} from "./model.ts";
export { componentKinds } from "./model.ts";
export { Moments } from "./moments.ts";
export {
  classification,
  type Objective,
  objectiveOf,
  objectives,
  regression,
} from "./objective.ts";
export { observeImplants } from "./observe.ts";
export { PerLength } from "./per-length.ts";
export {
  applyDecisions,
  type Budget,
  costOf,
  describePlan,
  expectImplantRank,
  expectReachable,
  type LatencyOf,
  leastSensitiveFirst,
  type ModelSize,
  makePlan,
  makePlans,
  type NewImplants,
  type Plan,
  type PlannedSize,
  type PlanOptions,
  type RankBy,
  rankings,
  type Scope,
  scopes,
  sizeOfModel,
} from "./plan.ts";
export { Random } from "./random.ts";
export { type Batch, drawSamples, longest, type Samples, selectSamples } from "./samples.ts";
export {
  type EstimatorChoice,
  estimatorChoices,
  type GroupScores,
  type Metric,
  measureSensitivity,
  metrics,
  rowMeanSquares,
  type Sensitivity,
  type SensitivityOptions,
  secondOrderMetrics,
} from "./sensitivity.ts";
export { spearman } from "./spearman.ts";
