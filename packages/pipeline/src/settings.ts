/** @file What can be set, and what it is when nothing is said. */
import type { Budget, EstimatorChoice, Metric, Model, PlanOptions } from "@espalier/core";
import type { OptimizerOptions, Schedule } from "@espalier/train";

export interface SensitivitySettings {
  readonly metric: Metric;
  readonly estimator: EstimatorChoice;
  readonly draws?: number | undefined;
  readonly temperature: number;
  /** Training samples, drawn by the seed. */
  readonly samples: number;
  readonly coupling: "together" | "apart";
}

export type ImplantStart = "least-squares" | "centre-tap" | "zero";

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
  /** Training samples held out to watch the tuning. */
  readonly validation: number;
}

export interface PruneSettings {
  readonly sensitivity: SensitivitySettings;
  readonly plan: PlanOptions;
  /** In how many steps the budget is reached, scores being measured anew before each. */
  readonly rounds: number;
  readonly implantStart: ImplantStart;
  /** Training samples for fitting implants and estimating statistics; 0: neither. */
  readonly calibration: number;
  readonly tune: TuneSettings;
  /** How the model is trained before it is pruned, with a fresh head if it has none; default: not. */
  readonly tuneDense?: TuneSettings | undefined;
  readonly seed: number;
  /** Samples at a time where nothing is trained. It does not change results beyond rounding. */
  readonly batchSize: number;
}

// Measured: benchmarks/results/untuned-accuracy.
export const defaultSensitivity: SensitivitySettings = {
  metric: "removal",
  estimator: "auto",
  temperature: 4,
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

export const defaultTuning: TuneSettings = {
  epochs: 0,
  batchSize: 128,
  optimizer: { name: "sgd", momentum: 0.9, nesterov: true, weightDecay: 5e-4 },
  schedule: { name: "cosine", peak: 0.02, warmup: 0.05 },
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
  return {
    sensitivity: defaultSensitivity,
    plan: defaultPlan(budget),
    rounds: 1,
    implantStart: "least-squares",
    calibration: 1024,
    tune: defaultTuning,
    seed: 0,
    batchSize: 64,
  };
}
