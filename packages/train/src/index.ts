export { averageModels } from "./average.ts";
export { type EvaluateOptions, type Evaluation, evaluate, judge } from "./evaluate.ts";
export type { AdamWOptions, OptimizerOptions, SgdOptions } from "./optimizer.ts";
export { trainingOrder } from "./order.ts";
export { type ReestimateOptions, reestimateStatistics } from "./reestimate.ts";
export { learningRateAt, type Schedule } from "./schedule.ts";
export {
  compileTrainingStep,
  type DeviceState,
  type Distillation,
  disposeState,
  expectHidden,
  parametersIn,
  readState,
  type StepInputs,
  type StepOptions,
  type StepResult,
  type TeacherOutputs,
  type TrainedModel,
  type TrainingState,
  type TrainingStep,
} from "./step.ts";
export { narrowTokenTable, type ResumedTraining, type TokenTable } from "./token-table.ts";
export {
  type EpochRecord,
  expectBatch,
  expectSmoothing,
  type PartialEpoch,
  type TrainEvent,
  type TrainingCheckpoint,
  type TrainOptions,
  type TrainResult,
  train,
} from "./train.ts";
