/** @file What can be set, and what it is when nothing is said. */
import type {
  Budget,
  ComponentSelection,
  EstimatorChoice,
  Metric,
  Model,
  PlanOptions,
} from "@espalier/core";
import type { OptimizerOptions, Schedule } from "@espalier/train";

/** The components that are selected are scored, and may be pruned. */
export interface SensitivitySettings extends ComponentSelection {
  readonly metric: Metric;
  readonly estimator: EstimatorChoice;
  readonly draws?: number | undefined;
  readonly temperature: number;
  /** Training samples, drawn by the seed. */
  readonly samples: number;
  readonly coupling: "together" | "apart";
}

export type ImplantStart = "least-squares" | "centre-tap" | "zero";

/** Whether the layers that read what was pruned are fitted to their former outputs. */
export type Compensation = "least-squares" | "none";

export interface TuneSettings {
  readonly epochs: number;
  readonly batchSize: number;
  readonly optimizer: OptimizerOptions;
  readonly schedule: Schedule;
  readonly labelSmoothing: number;
  /** What the norm of the gradient may be at most; default: anything. */
  readonly clip?: number | undefined;
  /** Share of the loss that asks for the dense model's outputs; 0: none. */
  readonly distillation: number;
  /** Share of the loss that asks for the outputs of the dense model's layers; default: none. */
  readonly hiddenDistillation?: number | undefined;
  /** Training samples held out to watch the tuning. */
  readonly validation: number;
  /** Whether the test set is judged after every epoch, too; see `TrainOptions.test`. Default: not. */
  readonly testEpochs?: boolean | undefined;
}

export interface PlanSettings extends Omit<PlanOptions, "roundTo"> {
  /** "measured": what is found to pay on the machine at hand, for budgets of latency. */
  readonly roundTo: number | "measured";
}

export interface PruneSettings {
  readonly sensitivity: SensitivitySettings;
  readonly plan: PlanSettings;
  /** Samples at a time whose latency the budget is about, if it is of latency. */
  readonly latencyBatch?: number | undefined;
  /** In how many steps the budget is reached, scores being measured anew before each. */
  readonly rounds: number;
  readonly implantStart: ImplantStart;
  readonly compensation: Compensation;
  /** Training samples for fitting weights and estimating statistics; 0: neither. */
  readonly calibration: number;
  readonly tune: TuneSettings;
  /** How the model is trained before it is pruned, with a fresh head if it has none; default: not. */
  readonly tuneDense?: TuneSettings | undefined;
  readonly seed: number;
  /** Samples at a time where nothing is trained. It does not change results beyond rounding. */
  readonly batchSize: number;
}

/**
 * The temperature of each metric where none is given. HAP's trace is that of the loss itself; the cost
 * of removal ranks better with softened seeds (`npm run bench -- untuned`). The others
 * have none.
 */
export const defaultTemperatures: Readonly<Record<Metric, number>> = {
  "hessian-trace": 1,
  removal: 4,
  "fitted-removal": 4,
  gradient: 1,
  magnitude: 1,
  random: 1,
};

// Compared by `npm run bench -- untuned` and `npm run bench -- compensation`.
export const defaultSensitivity: SensitivitySettings = {
  metric: "removal",
  estimator: "auto",
  temperature: defaultTemperatures.removal,
  samples: 512,
  coupling: "together",
};

// Measured: benchmarks/results/speed.md, with widths of 1, 8 and 16; see decision 009.
const ROUND_TO = 16;

/** The plan for a budget. */
export function defaultPlan(budget: Budget): PlanOptions {
  return {
    budget,
    implant: 0,
    scope: "kind",
    rankBy: "score-per-cost",
    floor: 0,
    wholeBranches: true,
    roundTo: ROUND_TO,
  };
}

/** Shares to keep for which a run also records what their plans would be: 5 % to 100 %. */
export const budgetShares: readonly number[] = Array.from({ length: 20 }, (_, i) => (i + 1) / 20);

export const defaultTuning: TuneSettings = {
  epochs: 0,
  batchSize: 128,
  optimizer: { name: "sgd", momentum: 0.9, nesterov: true, weightDecay: 5e-4 },
  // A few steps at a high rate take a network away from where it was: decision 030.
  schedule: { name: "cosine", peak: 0.02, warmup: 0.05, fullFrom: 700 },
  labelSmoothing: 0,
  distillation: 0,
  validation: 5000,
};

// The fine-tuning of BERT (arXiv 1810.04805, appendix A.3) and of Hugging Face's run_glue.
export const defaultTextTuning: TuneSettings = {
  ...defaultTuning,
  batchSize: 32,
  optimizer: { name: "adamw", betas: [0.9, 0.999], epsilon: 1e-8, weightDecay: 0.01 },
  schedule: { name: "linear", peak: 5e-5, warmup: 0.1 },
  clip: 1,
  validation: 500,
};

/** How models like this one are tuned when nothing is said. */
export function defaultTuningOf({ preprocessing }: Pick<Model, "preprocessing">): TuneSettings {
  return { image: defaultTuning, text: defaultTextTuning }[preprocessing.kind];
}

export function defaultPruning(budget: Budget): PruneSettings {
  const plan = defaultPlan(budget);
  return {
    sensitivity: defaultSensitivity,
    ...(budget.of === "latency"
      ? { plan: { ...plan, roundTo: "measured" }, latencyBatch: 1 }
      : { plan }),
    rounds: 1,
    implantStart: "least-squares",
    compensation: "least-squares",
    calibration: 1024,
    tune: defaultTuning,
    seed: 0,
    batchSize: 64,
  };
}
