/** @file Sensitivity: a score for every component, and how sure it is. */
import { EspalierError } from "@espalier/base";
import { cost, type Executor, float32Data, input, simplify } from "@espalier/graph";
import { forEachBatch } from "./batches.ts";
import { bindParameters } from "./bind.ts";
import { measureChannelMoments } from "./channel-moments.ts";
import {
  type ComponentGroup,
  type ComponentSelection,
  componentGroups,
  countComponents,
  parametersOf,
  readersOf,
} from "./components.ts";
import { eliminationCosts } from "./elimination.ts";
import {
  addReadings,
  type EstimateEvent,
  type Estimates,
  type Estimator,
  estimate,
  siteReadings,
} from "./estimate.ts";
import { fitBatch } from "./fit-batch.ts";
import type { Model } from "./model.ts";
import { Moments } from "./moments.ts";
import { objectiveOf } from "./objective.ts";
import { PerLength } from "./per-length.ts";
import { placesOf } from "./places.ts";
import type { Random } from "./random.ts";
import { longest, type Samples } from "./samples.ts";
import { spearman } from "./spearman.ts";

/**
 * What a component's score measures; lower means that less is lost without it.
 *
 * - `hessian-trace`: the relative Hessian trace, Trace(H_pp) / (2p) · ‖w_p‖² (HAP, arXiv 2101.08940);
 *   added up over the layers that a component takes part in.
 * - `removal`: half the second derivative of the loss with respect to a factor on the component's
 *   output: the second-order cost of its removal.
 * - `fitted-removal`: the same, of what is left of it once the weight that reads a channel is fitted to
 *   the channels that are kept: a component's score is what its removal adds to that of all in its group
 *   with lower scores (`eliminationCosts`). Of components that are no such channels it is `removal`.
 * - `gradient`: the mean of |Σ gradient · output| at the component's output (Michel et al. 2019,
 *   arXiv 1905.10650; Molchanov et al. 2017, arXiv 1611.06440).
 * - `magnitude`: the mean square of the component's weights.
 * - `random`: standard normal numbers.
 */
export type Metric = (typeof metrics)[number];

export const metrics = [
  "hessian-trace",
  "removal",
  "fitted-removal",
  "gradient",
  "magnitude",
  "random",
] as const;

/** Metrics that are second derivatives, for which there are estimators and a temperature. */
export const secondOrderMetrics: readonly Metric[] = ["hessian-trace", "removal", "fitted-removal"];

/**
 * `auto` is `exact` for few classes and `probe` for many where these give the metric's own value. For
 * traces of networks that are not piecewise linear it is `control-variate` for few, which ranks at least
 * about as well in the same time as other estimators of the Hessian's (decision 026), and `hutchinson`
 * for many.
 */
export type EstimatorChoice = Estimator | "auto";

export const estimatorChoices: readonly EstimatorChoice[] = [
  "auto",
  "exact",
  "probe",
  "hutchinson",
  "control-variate",
];

// Beyond this many classes, one backward pass for each costs more than probes are wrong.
const EXACT_CLASSES = 20;

// Of hutchinson as HAP's function has it; its command line used 3, which ranks almost at random.
const DRAWS = { exact: 0, probe: 3, hutchinson: 300, "control-variate": 10 } as const;

/** Components that are not selected are not scored, and plans made by the scores keep them. */
export interface SensitivityOptions extends ComponentSelection {
  readonly executor: Executor;
  readonly samples: Samples;
  readonly metric: Metric;
  readonly estimator: EstimatorChoice;
  /** Default: 3 for `probe`, 300 for `hutchinson`, 10 for `control-variate`. */
  readonly draws?: number | undefined;
  readonly temperature: number;
  /** Residual branches lose channels "together" or "apart". */
  readonly coupling: "together" | "apart";
  readonly batchSize: number;
  readonly random: Random;
  readonly signal?: AbortSignal | undefined;
  readonly onEvent?: ((event: EstimateEvent) => void) | undefined;
}

export interface GroupScores {
  readonly group: ComponentGroup;
  readonly scores: Float64Array;
  /** NaN where there is nothing to tell it from. Zero for scores that are exact. */
  readonly standardErrors: Float64Array;
}

export interface Sensitivity {
  readonly metric: Metric;
  /** Absent for metrics that estimate nothing. */
  readonly estimator?: Estimator;
  readonly temperature: number;
  readonly coupling: "together" | "apart";
  readonly samples: number;
  readonly draws: number;
  readonly groups: readonly GroupScores[];
  /** Scores below zero: the estimate of something that cannot be negative, or a direction of descent. */
  readonly negative: number;
  /**
   * What rank correlation to expect with scores of another measurement, of as many other samples and
   * draws. One means that measuring again would not change the ranking; zero, that there is none.
   */
  readonly rankStability: number;
}

/** Scores every removable component of `model`. */
export async function measureSensitivity(
  model: Model,
  options: SensitivityOptions,
): Promise<Sensitivity> {
  const { metric, temperature, coupling, kinds, random } = options;
  if (!(temperature > 0)) {
    throw new EspalierError(
      "invalid-argument",
      `temperature: expected a number above 0, got ${temperature}`,
    );
  }
  const groups = componentGroups(model, coupling, options);
  if (groups.length === 0) {
    const what = kinds === undefined ? "components" : `${kinds.join("s or ")}s`;
    throw new EspalierError(
      "mismatched-model",
      `expected a model with removable ${what}, found none`,
    );
  }
  const total = countComponents(groups);
  const measured = await measure(model, groups, total, options);
  expectFinite(measured.scores, groups, metric);

  let offset = 0;
  const scored = groups.map((group): GroupScores => {
    const end = offset + group.count;
    const part = {
      group,
      scores: measured.scores.slice(offset, end),
      standardErrors: measured.standardErrors.slice(offset, end),
    };
    offset = end;
    return part;
  });
  return {
    metric,
    ...(measured.estimator === undefined ? {} : { estimator: measured.estimator }),
    temperature,
    coupling,
    samples: measured.samples,
    draws: measured.draws,
    groups: scored,
    negative: measured.scores.filter((score) => score < 0).length,
    rankStability: rankStability(measured.scores, measured.standardErrors, random),
  };
}

/** @throws EspalierError `not-finite` naming the first component whose score is no number. */
function expectFinite(scores: Float64Array, groups: readonly ComponentGroup[], metric: Metric) {
  let offset = 0;
  for (const { name, count } of groups) {
    for (let i = 0; i < count; i++) {
      const score = scores[offset + i];
      if (Number.isFinite(score)) continue;
      throw new EspalierError(
        "not-finite",
        `${metric}: expected a finite score for component ${i} of ${name}, got ${score}`,
        { group: name, component: i, score },
      );
    }
    offset += count;
  }
}

interface Measured {
  readonly scores: Float64Array;
  readonly standardErrors: Float64Array;
  readonly samples: number;
  readonly draws: number;
  readonly estimator?: Estimator;
}

async function measure(
  model: Model,
  groups: readonly ComponentGroup[],
  total: number,
  options: SensitivityOptions,
): Promise<Measured> {
  const { metric, samples, random } = options;
  const exact = { standardErrors: new Float64Array(total), samples: 0, draws: 0 };
  switch (metric) {
    case "random": {
      const normals = random.stream("random metric");
      return { ...exact, scores: new Float64Array(total).map(() => normals.normal()) };
    }
    case "magnitude": {
      return { ...exact, scores: meanSquares(model, groups, total) };
    }
    case "gradient": {
      const { mean, standardError } = await gradientImportance(model, groups, total, options);
      return { scores: mean, standardErrors: standardError, samples: samples.count, draws: 1 };
    }
    case "hessian-trace":
    case "removal":
    case "fitted-removal": {
      const estimator = chooseEstimator(model, options);
      const draws = options.draws ?? DRAWS[estimator];
      const quantity = metric === "hessian-trace" ? "trace" : "removal";
      const estimates: Estimates = await estimate(model, groups, {
        ...options,
        quantity,
        estimator,
        draws,
        rowFactors: metric === "hessian-trace" ? rowMeanSquares(model, groups) : undefined,
      });
      const halves = {
        scores: estimates.mean.map((mean) => mean / 2),
        standardErrors: estimates.standardError.map((error) => error / 2),
      };
      const isFitted = metric === "fitted-removal";
      return {
        ...(isFitted ? await afterFits(model, groups, halves, options) : halves),
        samples: estimates.samples,
        draws: estimates.draws,
        estimator,
      };
    }
  }
}

/** Costs of removal with nothing fitted, and with fits; errors are the same share of either. */
async function afterFits(
  model: Model,
  groups: readonly ComponentGroup[],
  { scores, standardErrors }: Pick<Measured, "scores" | "standardErrors">,
  options: SensitivityOptions,
): Promise<Pick<Measured, "scores" | "standardErrors">> {
  expectFinite(scores, groups, options.metric);
  const moments = await measureChannelMoments(model, groups, options);
  const fitted = scores.slice();
  let offset = 0;
  for (const group of groups) {
    const own = moments.get(group);
    const end = offset + group.count;
    if (own !== undefined) fitted.set(eliminationCosts(own, scores.subarray(offset, end)), offset);
    offset = end;
  }
  const errors = standardErrors.map((error, i) =>
    scores[i] > 0 ? error * (fitted[i] / scores[i]) : error,
  );
  return { scores: fitted, standardErrors: errors };
}

function chooseEstimator(model: Model, { estimator, metric }: SensitivityOptions): Estimator {
  if (estimator !== "auto") return estimator;
  const few = model.classes.length <= EXACT_CLASSES;
  if (metric !== "hessian-trace" || model.family.piecewiseLinear) return few ? "exact" : "probe";
  return few ? "control-variate" : "hutchinson";
}

/**
 * For every row of the parameters that make components the mean square ‖w‖² / p of the weights that
 * the component has in that parameter: of the row, or of the rows that move together.
 */
export function rowMeanSquares(
  model: Model,
  groups: readonly ComponentGroup[],
): ReadonlyMap<string, Float64Array> {
  const spans = new Map(
    groups.flatMap(({ rows, span = 1 }) => rows.map(({ parameter }) => [parameter, span])),
  );
  return new Map(
    parametersOf(groups).map((name) => {
      const { shape, data } = model.parameters.get(name)!;
      const span = spans.get(name)!;
      const length = (data.length / shape[0]) * span;
      const squares = new Float64Array(shape[0] / span);
      data.forEach((weight, i) => {
        squares[Math.floor(i / length)] += weight ** 2 / length;
      });
      return [
        name,
        Float64Array.from({ length: shape[0] }, (_, row) => squares[Math.floor(row / span)]),
      ];
    }),
  );
}

/** The mean square of all weights of each component. */
function meanSquares(model: Model, groups: readonly ComponentGroup[], total: number): Float64Array {
  const perRow = rowMeanSquares(model, groups);
  const result = new Float64Array(total);
  let offset = 0;
  for (const { count, rows, span = 1 } of groups) {
    const lengths = rows.map(({ parameter }) => {
      const { shape, data } = model.parameters.get(parameter)!;
      return data.length / shape[0];
    });
    const whole = lengths.reduce((a, b) => a + b);
    rows.forEach(({ parameter, indices }, k) => {
      indices.forEach((row, i) => {
        result[offset + i] += (perRow.get(parameter)![row * span] * lengths[k]) / whole;
      });
    });
    offset += count;
  }
  return result;
}

/** The mean over samples of |Σ gradient · output|, the gradient being that of the sample's loss. */
async function gradientImportance(
  model: Model,
  groups: readonly ComponentGroup[],
  total: number,
  options: SensitivityOptions,
): Promise<{ mean: Float64Array; standardError: Float64Array }> {
  const { executor, samples } = options;
  const objective = objectiveOf(model);
  const wanted = Math.min(options.batchSize, samples.count);
  const readers = readersOf(model, groups);
  const prepare = (batchSize: number, length: number | undefined) => {
    const { graph, constants } = bindParameters(model, batchSize, "evaluation", length);
    const targets = input("targets", graph.logits.shape);
    const seed = objective.residual(graph.logits, targets);
    const { outputs, readings } = siteReadings(placesOf(graph, groups, seed, readers));
    const { peakBytes } = cost(simplify(Object.values(outputs)));
    return { batchSize, constants, outputs, readings, peakBytes };
  };
  const { batchSize, readings } = fitBatch(executor, wanted, (size) =>
    prepare(size, longest(samples)),
  );
  const programs = new PerLength((length) => executor.compile(prepare(batchSize, length)));
  const moments = new Moments(total);
  const passes = Math.ceil(samples.count / batchSize);
  let pass = 0;
  try {
    await forEachBatch({ ...options, batchSize }, async (batch, _start, count) => {
      const targets = objective.targets(batch.labels, model.classes.length);
      const program = await programs.for(batch);
      const results = await program.run({ ...batch.feeds, targets });
      const data = Object.fromEntries(
        Object.entries(results).map(([name, tensor]) => [name, float32Data(tensor)]),
      );
      for (let n = 0; n < count; n++) {
        const values = new Float64Array(total);
        addReadings(readings, data, n, values);
        moments.add(values.map(Math.abs));
      }
      options.onEvent?.({ type: "pass-end", pass: ++pass, passes });
    });
  } finally {
    await programs.dispose();
  }
  return { mean: moments.mean(), standardError: moments.standardError() };
}

const REDRAWS = 20;

// Two measurements differ by the errors of both.
const ERRORS_APART = Math.SQRT2;

function rankStability(scores: Float64Array, errors: Float64Array, random: Random): number {
  if (errors.every((error) => error === 0)) return 1;
  let total = 0;
  for (let redraw = 0; redraw < REDRAWS; redraw++) {
    const normals = random.stream("rank stability", redraw);
    const redrawn = scores.map(
      (score, i) => score + ERRORS_APART * (errors[i] || 0) * normals.normal(),
    );
    total += spearman(scores, redrawn);
  }
  // Equal scores have no ranking to be stable.
  return Number.isNaN(total) ? 0 : total / REDRAWS;
}
