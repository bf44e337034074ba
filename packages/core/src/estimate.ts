/**
 * @file Estimators of what each component contributes to the curvature of the loss.
 *
 * Two quantities have the same estimators. The trace of a component's diagonal block of the Hessian
 * (HAP, arXiv 2101.08940); and its removal curvature, the second derivative of the loss with respect
 * to a factor on the component's output, which is twice the second-order cost of removing it with
 * nothing approximated inside the component.
 */
import { EspalierError, throwIfAborted } from "@espalier/base";
import {
  cost,
  type DeviceTensor,
  type Executor,
  float32Data,
  hessianQuadraticForms,
  input,
  multiply,
  type Program,
  sampleGradientNorms,
  sampleQuadraticForms,
  simplify,
  sizeOf,
  splitStages,
  sum,
  type TensorData,
  type Value,
} from "@espalier/graph";
import { forEachBatch } from "./batches.ts";
import { bindParameters } from "./bind.ts";
import {
  type ComponentGroup,
  countComponents,
  parametersOf,
  readersOf,
  singleRows,
} from "./components.ts";
import { fitBatch } from "./fit-batch.ts";
import type { Model, ModelGraph } from "./model.ts";
import { Moments } from "./moments.ts";
import { objectiveOf } from "./objective.ts";
import { PerLength } from "./per-length.ts";
import { type Place, placesOf } from "./places.ts";
import type { Random } from "./random.ts";
import { longest, type Samples } from "./samples.ts";

/** What is estimated for each component. */
export type Quantity = "trace" | "removal";

/**
 * - `exact`: the Gauss-Newton value, from one backward pass per class; no variance but that of the
 *   samples. Equal to the Hessian's in networks that are piecewise linear in each layer's weights.
 * - `probe`: the same in expectation, from `draws` backward passes whose seeds carry random signs,
 *   independent for every sample and class.
 * - `hutchinson`: the Hessian's own value, from `draws` products with random sign vectors over all
 *   components, shared by all samples (as HAP's code does).
 * - `control-variate`: the Gauss-Newton part as `exact` or `probe` give it, whichever takes fewer
 *   passes for `draws`, and only the rest of the Hessian from `draws` products. Rows have random signs
 *   of their own for every sample in them, so that what rows have to do with each other averages out
 *   over the samples too.
 */
export type Estimator = "exact" | "probe" | "hutchinson" | "control-variate";

export interface EstimateOptions {
  readonly executor: Executor;
  readonly samples: Samples;
  readonly quantity: Quantity;
  /**
   * For traces: what the trace of each row of a parameter is multiplied by before the rows of a
   * component are added up; default 1.
   */
  readonly rowFactors?: ReadonlyMap<string, ArrayLike<number>> | undefined;
  readonly estimator: Estimator;
  /** Probes; ignored by `exact`. */
  readonly draws: number;
  /**
   * Softens the probabilities in the seeds, p = softmax(logits / temperature). A trained network is
   * so sure of its training images that with 1 most of them contribute nothing.
   */
  readonly temperature: number;
  /**
   * Samples at a time; fewer where the executor's memory limit demands it. It does not change the
   * result beyond rounding.
   */
  readonly batchSize: number;
  readonly random: Random;
  readonly signal?: AbortSignal | undefined;
  readonly onEvent?: ((event: EstimateEvent) => void) | undefined;
}

/** One backward pass over one batch has ended. */
export interface EstimateEvent {
  readonly type: "pass-end";
  readonly pass: number;
  readonly passes: number;
}

/** Estimates for the components of all groups, one group after another. */
export interface Estimates {
  readonly mean: Float64Array;
  /** Over samples, or over draws for `hutchinson`. */
  readonly standardError: Float64Array;
  readonly samples: number;
  readonly draws: number;
}

/** Estimates `quantity` for every component of `groups`. */
export async function estimate(
  model: Model,
  groups: readonly ComponentGroup[],
  options: EstimateOptions,
): Promise<Estimates> {
  const { estimator, quantity, samples } = options;
  if (samples.count === 0) {
    throw new EspalierError("invalid-argument", "expected at least one sample, got none");
  }
  const passes = estimator === "exact" ? model.classes.length : options.draws;
  const isGaussNewton = estimator === "exact" || estimator === "probe";
  if (isGaussNewton) return averageOf(await gaussNewton(model, groups, options), passes);
  if (quantity === "removal") {
    throw new EspalierError(
      "invalid-argument",
      `estimator ${estimator}: expected the metric hessian-trace, got removal, which exact and probe estimate`,
    );
  }
  if (estimator === "hutchinson") return estimateHutchinson(model, groups, options);
  const curved = await residualCurvature(model, groups, options);
  const straight = await gaussNewton(model, groups, {
    ...options,
    estimator: model.classes.length <= options.draws ? "exact" : "probe",
    // The Hessian knows no temperature.
    temperature: 1,
  });
  for (const [n, values] of curved.entries()) {
    values.forEach((_, i) => {
      values[i] += straight[n][i];
    });
  }
  return averageOf(curved, passes);
}

/** @param values What each sample contributes to each component. */
function averageOf(values: readonly Float64Array[], draws: number): Estimates {
  const moments = new Moments(values[0].length);
  for (const each of values) moments.add(each);
  return {
    mean: moments.mean(),
    standardError: moments.standardError(),
    samples: values.length,
    draws,
  };
}

/** Outputs in two graphs: what does not depend on the varying inputs, and the rest. */
interface Stages {
  readonly first: Readonly<Record<string, Value>>;
  readonly second: Readonly<Record<string, Value>>;
  /** What both programs need; an executor keeps the memory of a program that is not running. */
  readonly peakBytes: number;
}

/** @param passes How often the varying inputs change for a batch. */
function stagesOf(
  outputs: Readonly<Record<string, Value>>,
  varying: readonly Value[],
  passes: number,
): Stages {
  const values = simplify(Object.values(outputs));
  // Carrying values over costs more than it saves where nothing is computed twice.
  const stages = passes > 1 ? splitStages(values, varying) : { carried: [], outputs: values };
  return {
    first: Object.fromEntries(stages.carried.map((value, i) => [`carried.${i}`, value])),
    second: Object.fromEntries(Object.keys(outputs).map((name, i) => [name, stages.outputs[i]])),
    peakBytes: cost(stages.carried).peakBytes + cost(stages.outputs).peakBytes,
  };
}

/**
 * Two programs, the first of which runs once per batch, the second once per pass. What the first hands
 * on stays on the device.
 */
class TwoStages {
  readonly #first: Program<never, string> | undefined;
  readonly #second: Program;
  #carried: Readonly<Record<string, DeviceTensor>> = {};
  #feeds: Readonly<Record<string, TensorData>> = {};

  private constructor(first: Program<never, string> | undefined, second: Program) {
    this.#first = first;
    this.#second = second;
  }

  static async compile(
    executor: Executor,
    { first, second }: Stages,
    constants: ReadonlyMap<Value, TensorData>,
  ): Promise<TwoStages> {
    const carries = Object.keys(first).length > 0;
    const before = carries
      ? await executor.compile({ outputs: {}, kept: first, constants })
      : undefined;
    try {
      return new TwoStages(before, await executor.compile({ outputs: second, constants }));
    } catch (error) {
      await before?.dispose();
      throw error;
    }
  }

  async begin(feeds: Readonly<Record<string, TensorData>>): Promise<void> {
    this.#free();
    this.#feeds = feeds;
    this.#carried = (await this.#first?.run(feeds)) ?? {};
  }

  async pass(varying: Readonly<Record<string, TensorData>>): Promise<Record<string, Float32Array>> {
    const results = await this.#second.run({ ...this.#feeds, ...this.#carried, ...varying });
    return Object.fromEntries(
      Object.entries(results).map(([name, tensor]) => [name, float32Data(tensor)]),
    );
  }

  async dispose(): Promise<void> {
    this.#free();
    await this.#first?.dispose();
    await this.#second.dispose();
  }

  #free(): void {
    for (const tensor of Object.values(this.#carried)) tensor.dispose();
    this.#carried = {};
    this.#feeds = {};
  }
}

/**
 * What one backward pass gives for one group, per sample: values [batch, ·] whose chosen columns
 * belong to the components. They are added up over the readings of a group.
 */
interface Reading {
  readonly output: string;
  readonly width: number;
  readonly columns: readonly number[];
  /** What each column is multiplied by; default 1. */
  readonly factors?: ArrayLike<number>;
}

/** Readings of one number per row of each parameter that makes a component. */
function rowReadings(
  groups: readonly ComponentGroup[],
  widthOf: (parameter: string) => number,
  rowFactors: EstimateOptions["rowFactors"],
): Reading[][] {
  return groups.map((group) =>
    singleRows(group).map(({ parameter, indices }) => {
      const factors = rowFactors?.get(parameter);
      return {
        output: parameter,
        width: widthOf(parameter),
        columns: indices,
        ...(factors === undefined ? {} : { factors: indices.map((row) => factors[row]) }),
      };
    }),
  );
}

function traceReadings(
  graph: ModelGraph,
  groups: readonly ComponentGroup[],
  seed: Value,
  rowFactors: EstimateOptions["rowFactors"],
): { outputs: Record<string, Value>; readings: Reading[][] } {
  const names = parametersOf(groups);
  const norms = sampleGradientNorms(
    [graph.logits],
    [seed],
    names.map((name) => graph.parameters.get(name)!),
  );
  const outputs = Object.fromEntries(names.map((name, i) => [name, norms[i]]));
  const readings = rowReadings(groups, (name) => outputs[name].shape[1], rowFactors);
  return { outputs, readings };
}

/** What removing each component takes away, to first order: ⟨cotangent, value⟩ per sample where it counts. */
export function siteReadings(places: readonly (readonly Place[])[]): {
  outputs: Record<string, Value>;
  readings: Reading[][];
} {
  const outputs: Record<string, Value> = {};
  const readings = places.map((own) =>
    own.map(({ name, value, cotangent, axis, columns }) => {
      outputs[name] ??= productAlong(axis, value, cotangent);
      return { output: name, width: value.shape[axis], columns };
    }),
  );
  return { outputs, readings };
}

/** ⟨a, b⟩ of each sample for each index of an axis: [batch, length of the axis]. */
function productAlong(axis: number, a: Value, b: Value): Value {
  const others = [...a.shape.keys()].filter((each) => each > 0 && each !== axis);
  return sum(multiply(b, a), others);
}

/** Adds the readings of sample n to `into`, one number per component. */
export function addReadings(
  readings: readonly (readonly Reading[])[],
  results: Readonly<Record<string, Float32Array>>,
  n: number,
  into: Float64Array,
): void {
  let offset = 0;
  for (const group of readings) {
    for (const { output, width, columns, factors } of group) {
      const data = results[output];
      for (let i = 0; i < columns.length; i++) {
        into[offset + i] += data[n * width + columns[i]] * (factors?.[i] ?? 1);
      }
    }
    offset += group[0].columns.length;
  }
}

/** What each sample contributes to each component. */
async function gaussNewton(
  model: Model,
  groups: readonly ComponentGroup[],
  options: EstimateOptions,
): Promise<Float64Array[]> {
  const { executor, samples, quantity, estimator, temperature, random } = options;
  const objective = objectiveOf(model);
  const wanted = Math.min(options.batchSize, samples.count);
  const classes = model.classes.length;
  const passes = estimator === "exact" ? classes : options.draws;
  const readers = quantity === "trace" ? new Map() : readersOf(model, groups);
  const prepare = (batchSize: number, length: number | undefined) => {
    const { graph, constants } = bindParameters(model, batchSize, "evaluation", length);
    const directions = input("directions", graph.logits.shape);
    const seed = objective.root(graph.logits, directions, temperature);
    const { outputs, readings } =
      quantity === "trace"
        ? traceReadings(graph, groups, seed, options.rowFactors)
        : siteReadings(placesOf(graph, groups, seed, readers));
    return { batchSize, constants, readings, ...stagesOf(outputs, [directions], passes) };
  };
  const { batchSize, readings } = fitBatch(executor, wanted, (size) =>
    prepare(size, longest(samples)),
  );
  const programs = new PerLength((length) => {
    const prepared = prepare(batchSize, length);
    return TwoStages.compile(executor, prepared, prepared.constants);
  });

  const total = countComponents(groups);
  const values: Float64Array[] = [];
  const batches = Math.ceil(samples.count / batchSize);
  let done = 0;
  try {
    await forEachBatch({ ...options, batchSize }, async (batch, start, count) => {
      const program = await programs.for(batch);
      await program.begin(batch.feeds);
      const totals = Array.from({ length: count }, () => new Float64Array(total));
      for (let pass = 0; pass < passes; pass++) {
        throwIfAborted(options.signal);
        const chosen = new Float32Array(batchSize * classes);
        for (let n = 0; n < batchSize; n++) {
          if (estimator === "exact") {
            chosen[n * classes + pass] = 1;
            continue;
          }
          // Signs belong to a sample and a draw, whatever the batches are.
          const signs = random.stream("probe", start + n, pass);
          for (let c = 0; c < classes; c++) chosen[n * classes + c] = signs.sign();
        }
        const results = await program.pass({ directions: chosen });
        const scratch = new Float64Array(total);
        for (let n = 0; n < count; n++) {
          if (quantity === "trace") {
            addReadings(readings, results, n, totals[n]);
            continue;
          }
          scratch.fill(0);
          addReadings(readings, results, n, scratch);
          for (let i = 0; i < total; i++) totals[n][i] += scratch[i] * scratch[i];
        }
        options.onEvent?.({ type: "pass-end", pass: ++done, passes: passes * batches });
      }
      for (const sums of totals) {
        values.push(estimator === "exact" ? sums : sums.map((sum) => sum / passes));
      }
    });
  } finally {
    await programs.dispose();
  }
  return values;
}

/** Random signs for all parameters `names`, as the inputs `direction.0`, `direction.1`, … */
function drawDirections(
  model: Model,
  names: readonly string[],
  random: Random,
  draw: number,
): Record<string, Float32Array> {
  return Object.fromEntries(
    names.map((name, i) => {
      const signs = random.stream("probe", draw, name);
      const length = sizeOf(model.parameters.get(name)!.shape);
      return [`direction.${i}`, Float32Array.from({ length }, () => signs.sign())];
    }),
  );
}

/**
 * What each sample contributes to the trace of each component's block, of the Hessian of ⟨r, f(w)⟩ with
 * the loss's gradient r in the outputs f held as it is: Σ r_j ∇²f_j is what the loss's Hessian has
 * beyond the Gauss-Newton matrix (Schraudolph 2002, equation 2).
 */
async function residualCurvature(
  model: Model,
  groups: readonly ComponentGroup[],
  options: EstimateOptions,
): Promise<Float64Array[]> {
  const { executor, samples, draws, random } = options;
  const names = parametersOf(groups);
  const objective = objectiveOf(model);
  const wanted = Math.min(options.batchSize, samples.count);
  const prepare = (batchSize: number, length: number | undefined) => {
    const { graph, constants } = bindParameters(model, batchSize, "evaluation", length);
    const parameters = names.map((name) => graph.parameters.get(name)!);
    const directions = parameters.map(({ shape }, i) => input(`direction.${i}`, shape));
    const signs = parameters.map(({ shape }, i) => input(`signs.${i}`, [batchSize, shape[0]]));
    const targets = input("targets", graph.logits.shape);
    const value = sum(multiply(graph.logits, input("residual", targets.shape)));
    const forms = sampleQuadraticForms(value, parameters, directions, signs);
    const outputs = Object.fromEntries(names.map((name, i) => [name, forms[i]]));
    const before = { residual: objective.residual(graph.logits, targets) };
    const varying = [...directions, ...signs];
    return { batchSize, constants, directions, before, ...stagesOf(outputs, varying, draws) };
  };
  const { batchSize, directions } = fitBatch(executor, wanted, (size) =>
    prepare(size, longest(samples)),
  );
  const programs = new PerLength(async (length) => {
    const prepared = prepare(batchSize, length);
    const { before, constants } = prepared;
    const first = await executor.compile({ outputs: before, constants });
    const forms = await TwoStages.compile(executor, prepared, constants);
    const dispose = async () => {
      await first.dispose();
      await forms.dispose();
    };
    return { before: first, forms, dispose };
  });

  const total = countComponents(groups);
  const readings = rowReadings(
    groups,
    (name) => model.parameters.get(name)!.shape[0],
    options.rowFactors,
  );
  const values: Float64Array[] = [];
  const passes = draws * Math.ceil(samples.count / batchSize);
  let done = 0;
  try {
    await forEachBatch({ ...options, batchSize }, async (batch, start, count) => {
      const { before, forms } = await programs.for(batch);
      // Rows that only fill up a batch have targets of zero, and no loss.
      const targets = objective.targets(batch.labels, model.classes.length, count);
      const { residual } = await before.run({ ...batch.feeds, targets });
      await forms.begin({ ...batch.feeds, residual: float32Data(residual) });
      const totals = Array.from({ length: count }, () => new Float64Array(total));
      for (let draw = 0; draw < draws; draw++) {
        throwIfAborted(options.signal);
        const feeds = drawDirections(model, names, random, draw);
        directions.forEach(({ shape: [rows] }, i) => {
          feeds[`signs.${i}`] = new Float32Array(batchSize * rows);
        });
        for (let n = 0; n < count; n++) {
          // Signs belong to a sample and a draw, whatever the batches are.
          const signs = random.stream("signs", start + n, draw);
          directions.forEach(({ shape: [rows] }, i) => {
            for (let r = 0; r < rows; r++) feeds[`signs.${i}`][n * rows + r] = signs.sign();
          });
        }
        const results = await forms.pass(feeds);
        for (let n = 0; n < count; n++) addReadings(readings, results, n, totals[n]);
        options.onEvent?.({ type: "pass-end", pass: ++done, passes });
      }
      for (const sums of totals) values.push(sums.map((sum) => sum / draws));
    });
  } finally {
    await programs.dispose();
  }
  return values;
}

async function estimateHutchinson(
  model: Model,
  groups: readonly ComponentGroup[],
  options: EstimateOptions,
): Promise<Estimates> {
  const { executor, samples, draws, random } = options;
  const names = parametersOf(groups);
  const objective = objectiveOf(model);
  const wanted = Math.min(options.batchSize, samples.count);
  const prepare = (batchSize: number, length: number | undefined) => {
    const { graph, constants } = bindParameters(model, batchSize, "evaluation", length);
    const parameters = names.map((name) => graph.parameters.get(name)!);
    const directions = parameters.map((value, i) => input(`direction.${i}`, value.shape));
    const targets = input("targets", graph.logits.shape);
    const loss = sum(objective.loss(graph.logits, targets));
    const forms = hessianQuadraticForms(loss, parameters, directions);
    const outputs = Object.fromEntries(names.map((name, i) => [name, forms[i]]));
    return { batchSize, constants, ...stagesOf(outputs, directions, draws) };
  };
  const { batchSize } = fitBatch(executor, wanted, (size) => prepare(size, longest(samples)));
  const programs = new PerLength((length) => {
    const prepared = prepare(batchSize, length);
    return TwoStages.compile(executor, prepared, prepared.constants);
  });

  const total = countComponents(groups);
  const readings = rowReadings(groups, () => 0, options.rowFactors);
  const totals = Array.from({ length: draws }, () => new Float64Array(total));
  const passes = draws * Math.ceil(samples.count / batchSize);
  let done = 0;
  try {
    await forEachBatch({ ...options, batchSize }, async (batch, _start, count) => {
      // Rows that only fill up a batch have targets of zero, and no loss.
      const program = await programs.for(batch);
      const targets = objective.targets(batch.labels, model.classes.length, count);
      await program.begin({ ...batch.feeds, targets });
      for (let draw = 0; draw < draws; draw++) {
        throwIfAborted(options.signal);
        const feeds = drawDirections(model, names, random, draw);
        addReadings(readings, await program.pass(feeds), 0, totals[draw]);
        options.onEvent?.({ type: "pass-end", pass: ++done, passes });
      }
    });
  } finally {
    await programs.dispose();
  }
  const moments = new Moments(total);
  for (const values of totals) moments.add(values.map((value) => value / samples.count));
  return {
    mean: moments.mean(),
    standardError: moments.standardError(),
    samples: samples.count,
    draws,
  };
}
