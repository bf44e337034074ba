/** @file Weights fitted anew after pruning, so that layers put out what they did before. */
import { throwIfAborted } from "@espalier/base";
import {
  type Executor,
  gather,
  input,
  matmul,
  multiply,
  reshape,
  scalar,
  subtract,
  sum,
  transpose,
  type Value,
} from "@espalier/graph";
import { addInto, prefetch } from "./batches.ts";
import { fitBatch } from "./fit-batch.ts";
import { divideBySlope, findTargets } from "./fit-targets.ts";
import {
  type Correction,
  gainsOf,
  type NormalSums,
  type Spread,
  solveNormal,
  spreadOf,
  type TargetSums,
} from "./least-squares.ts";
import type { Model, ModelGraph, Shift } from "./model.ts";
import { restate } from "./normalization.ts";
import type { Random } from "./random.ts";
import { orderByLength, type Samples } from "./samples.ts";
import { Walk } from "./walk.ts";

export interface CompensateOptions {
  readonly executor: Executor;
  /** Samples at a time. It does not change the result beyond rounding. */
  readonly batchSize: number;
  /** Draws the positions of each layer that are looked at. */
  readonly random: Random;
  /** Whether a weight, by its name in the pruned model, may be fitted; default: all. */
  readonly fits?: ((weight: string) => boolean) | undefined;
  readonly signal?: AbortSignal | undefined;
  /** Called after every weight. */
  readonly onProgress?: ((done: number, total: number) => void) | undefined;
}

// Of a layer, as many positions are looked at as give this many observations for every unknown of a
// row: enough for the normal equations to be determined well, since positions are correlated.
const OBSERVATIONS_PER_UNKNOWN = 64;

/**
 * The penalty on changes of a weight, relative to the mean square of its regressors (decision 016).
 * Where there are fewer observations than are looked at, it is as much larger: in all, the penalty is
 * worth as many of them (decision 023).
 */
function ridgeOf(unknowns: number, observations: number): number {
  return 1e-3 * Math.max(1, (OBSERVATIONS_PER_UNKNOWN * unknowns) / observations);
}

// The normal equations of a row with n unknowns take 16n² bytes and n³/3 multiplications: up to 512
// channels of 3×3, half a minute of one core and a third of a gigabyte (decision 023).
const MOST_UNKNOWNS = 4608;

// How many times as large a weight may become. Of regressors that hardly vary from sample to sample, weights
// of any size can be made that fit, and that no training step is small enough for (decision 041).
const MOST_GROWTH = 10;

// A row of which less than a quarter can be explained would be mostly noise if it varied as before.
const MOST_GAIN = 2;

/**
 * `pruned`, which is `dense` pruned, with every weight that is new or reads something else than
 * before fitted anew, first layers first: on `samples`, what it makes of the activations of the
 * pruned model is as close as can be, in least squares, to what the same channels were in `dense`
 * (asymmetric reconstruction, He et al. 2017, arXiv 1707.06168); see `findTargets` for layers that end
 * branches. A ridge holds weights to what they were, a stronger one where they would become more than ten
 * times as large (decision 041). A fit varies less than what it is fitted to, which adds up from layer to
 * layer, so rows whose outputs are normalised by stored statistics are multiplied to vary as much, by 2 at
 * most (decision 031), and where they are fitted to a sum, normalisation is written for how much they vary
 * (decision 032). Constants go to biases and running means; where a layer
 * has nothing left to read, its bias becomes the mean of what it made. Nothing but weights, these and
 * what normalises them changes, and nothing at all where nothing was pruned.
 *
 * Weights that the graph does not name as fittable are left as they are, those with more than 4,608
 * numbers a row too, but for their constants. Of sequences, all positions are looked at but those that
 * were filled up.
 *
 * @throws EspalierError `out-of-memory` if not even one sample at a time keeps to the memory limit.
 */
export async function compensate(
  dense: Model,
  pruned: Model,
  unordered: Samples,
  options: CompensateOptions,
): Promise<Model> {
  const { executor, onProgress } = options;
  const samples = orderByLength(unordered);
  const wanted = Math.min(options.batchSize, samples.count);
  const { fits, sequences } = fitBatch(executor, wanted, (size) =>
    prepare(dense, pruned, samples, size, options),
  );
  let parameters = pruned.parameters;
  for (const [i, fit] of fits.entries()) {
    const totals: Totals = new Map();
    for (const sequence of sequences) {
      const constants = { targets: dense.parameters, sums: parameters };
      await addUp(totals, fit.sums, i, sequence, samples, constants, options);
    }
    parameters = correct(parameters, fit, totals);
    onProgress?.(i + 1, fits.length);
  }
  return parameters === pruned.parameters ? pruned : pruned.withParameters(parameters);
}

/** The sums that a weight is fitted by, over everything that is looked at. */
type SumName = keyof NormalSums | keyof TargetSums;
type Totals = Map<SumName, Float64Array>;

/** One weight to be fitted. */
interface Fit {
  readonly weight: string;
  readonly shift: Shift | undefined;
  /** The first of the weight's channels among those of the shift. */
  readonly offset: number;
  /** Of rows that see different things. */
  readonly groups: number;
  /**
   * What is done about how much rows vary that are normalised: they are multiplied to vary as much as
   * what they are fitted to, or, where that is a sum, normalisation is written for them as they are.
   */
  readonly scaling: "gain" | "restate" | undefined;
  readonly sums: readonly SumName[];
}

/** Samples that are looked at together. */
interface SampleBatch {
  readonly rows: readonly number[];
  /** How many of the first rows count; the others fill the batch up. */
  readonly count: number;
}

/** The batches of one shape, and what computes the steps of a fit for them. */
interface Sequence {
  readonly batches: readonly SampleBatch[];
  readonly dense: ModelGraph;
  readonly pruned: ModelGraph;
  readonly targets: Walk;
  readonly sums: Walk;
}

/** Adds to `totals` what step `step` gives, called `names`, for all batches of `sequence`. */
async function addUp(
  totals: Totals,
  names: readonly SumName[],
  step: number,
  { batches, dense, pruned, ...walks }: Sequence,
  samples: Samples,
  parameters: Readonly<Record<"targets" | "sums", Model["parameters"]>>,
  { executor, signal }: CompensateOptions,
): Promise<void> {
  const constantsOf = (graph: ModelGraph, of: Model["parameters"]) =>
    new Map([...graph.parameters].map(([name, value]) => [value, of.get(name)!.data]));
  const targets = await walks.targets.open(step, executor, constantsOf(dense, parameters.targets));
  const sums = await walks.sums.open(step, executor, constantsOf(pruned, parameters.sums));
  try {
    const needsSamples = Object.keys(pruned.inputs).some(
      (name) => targets.inputs.has(name) || sums.inputs.has(name),
    );
    const feedsOf = async (batch: number) =>
      needsSamples ? (await samples.batch(batches[batch].rows)).feeds : {};
    let batch = 0;
    for await (const feeds of prefetch(batches.length, feedsOf)) {
      throwIfAborted(signal);
      const { rows, count } = batches[batch];
      const counted = Float32Array.from(rows, (_, n) => (n < count ? 1 : 0));
      const [target] = await targets.run(batch, feeds);
      const results = await sums.run(batch, { ...feeds, target, counted });
      names.forEach((name, k) => {
        addInto(totals, name, results[k]);
      });
      batch++;
    }
  } finally {
    await targets.dispose();
    await sums.dispose();
  }
}

/** Programs for batches of one size, and of every length that these have. */
function prepare(
  dense: Model,
  pruned: Model,
  samples: Samples,
  batchSize: number,
  options: CompensateOptions,
) {
  const byLength = new Map<number | undefined, SampleBatch[]>();
  let held = 0;
  for (let start = 0; start < samples.count; start += batchSize) {
    const count = Math.min(batchSize, samples.count - start);
    const rows = Array.from({ length: batchSize }, (_, n) => start + (n < count ? n : 0));
    // Samples come in the order of their lengths.
    const length = samples.lengths?.[start + count - 1];
    byLength.set(length, [...(byLength.get(length) ?? []), { rows, count }]);
    held += length ?? 1;
  }
  // Half of the memory for what is held, the rest for what runs.
  const mostBytes = (options.executor.memoryLimit ?? Number.POSITIVE_INFINITY) / 4 / held;
  const prepared = [...byLength].map(([length, batches]) => {
    const shape = { batchSize, length, samples: samples.count };
    const { targets, sums, ...rest } = prepareShape(dense, pruned, shape, options);
    const most = mostBytes * (length ?? 1);
    const parameters = [...rest.pruned.parameters.values()];
    return {
      ...{ ...rest, batches },
      targets: new Walk(targets, most),
      sums: new Walk(sums, most, parameters),
    };
  });
  // A step of each is open at a time.
  const running = prepared.map(({ targets, sums }) => targets.peakBytes + sums.peakBytes);
  const peakBytes = 2 * Math.max(...running);
  return { batchSize, peakBytes, fits: prepared[0].fits, sequences: prepared };
}

/** The wanted outputs of each weight, and the sums to fit it by, for batches of one shape. */
function prepareShape(
  denseModel: Model,
  prunedModel: Model,
  shape: { batchSize: number; length: number | undefined; samples: number },
  { random, fits: isWanted = () => true }: CompensateOptions,
) {
  const { batchSize, length, samples } = shape;
  const dense = denseModel.build(batchSize, "evaluation", length);
  const pruned = prunedModel.build(batchSize, "evaluation", length);
  const fits: Fit[] = [];
  const targets: Value[][] = [];
  const sums: Value[][] = [];
  const counted = input("counted", [batchSize]);
  for (const { name, regressors, ...fit } of findTargets(denseModel, prunedModel, dense, pruned)) {
    if (!isWanted(name)) continue;
    const { shift, offset } = pruned.fittable.get(name)!;
    const [, count, available] = fit.wanted.shape;
    const [, groups, unknowns] = regressors?.shape ?? [0, 1, 0];
    const solvable = unknowns > 0 && unknowns <= MOST_UNKNOWNS;
    if (!solvable && shift === undefined) continue;
    // Which positions of a sequence are there depends on the sample.
    const masked = pruned.mask?.shape[1] === available ? pruned.mask : undefined;
    const enough = Math.ceil((OBSERVATIONS_PER_UNKNOWN * unknowns) / samples);
    const chosen =
      masked === undefined && regressors !== undefined
        ? random.stream("positions", name).permutation(available).subarray(0, enough).slice().sort()
        : undefined;
    const choose = (value: Value, axis: number) =>
      chosen === undefined ? value : gather(value, [...chosen], axis);
    const wanted = choose(fit.wanted, 2);
    const positions = wanted.shape[2];
    const counts = reshape(counted, [batchSize, 1, 1, 1]);
    const present =
      masked === undefined
        ? counts
        : multiply(counts, reshape(masked, [batchSize, 1, 1, positions]));
    // [N, groups, rows, positions] to [groups, rows, observations].
    const flat = (value: Value) =>
      reshape(transpose(multiply(value, present), [1, 2, 0, 3]), [
        groups,
        value.shape[2],
        batchSize * positions,
      ]);
    const observations = multiply(sum(present), scalar(positions / present.shape[3]));
    const target = input("target", wanted.shape);
    const made =
      fit.sum === undefined
        ? target
        : divideBySlope(subtract(target, choose(fit.sum.rest, 2)), choose(fit.sum.slope, 2));
    const wantedRows = reshape(made, [batchSize, groups, count / groups, positions]);
    const isNormalized = solvable && shift?.normalization !== undefined;
    // What makes up for other branches would overshoot if it varied as much as all that is missing.
    const scaling = !isNormalized ? undefined : fit.sum === undefined ? "gain" : "restate";
    let added: Partial<Record<SumName, Value>>;
    if (regressors === undefined) {
      added = { observations, e: sum(flat(wantedRows), [2]) };
    } else {
      const seen = choose(regressors, 3);
      const weight = reshape(pruned.parameters.get(name)!, [groups, count / groups, unknowns]);
      const y = flat(wantedRows);
      const e = flat(subtract(wantedRows, matmul(weight, seen)));
      const x = flat(seen);
      const square = solvable ? { xx: matmul(x, transpose(x)), xe: matmul(x, transpose(e)) } : {};
      const spread = scaling === "gain" ? { y: sum(y, [2]), yy: sum(multiply(y, y), [2]) } : {};
      added = { observations, e: sum(e, [2]), x: sum(x, [2]), ...square, ...spread };
    }
    const names = Object.keys(added) as SumName[];
    fits.push({ ...{ weight: name, shift, offset, groups, scaling }, sums: names });
    targets.push([wanted]);
    sums.push(Object.values(added));
  }
  return { fits, dense, pruned, targets, sums };
}

/** `parameters` with one weight changed so that its errors, summed up in `totals`, become least. */
function correct(
  parameters: Model["parameters"],
  { weight, shift, offset, groups, scaling, sums }: Fit,
  totals: Totals,
): Model["parameters"] {
  const corrected = new Map(parameters);
  const copyOf = (name: string) => {
    const parameter = parameters.get(name)!;
    const data = parameter.data.slice();
    corrected.set(name, { ...parameter, data });
    return data;
  };
  const [observations] = totals.get("observations")!;
  const weights = sums.includes("xx") ? copyOf(weight) : undefined;
  const constants = shift && copyOf(shift.parameter);
  const { normalization } = shift ?? {};
  const normalized =
    normalization && scaling === "restate"
      ? {
          mean: constants!,
          variance: copyOf(normalization.variance),
          scale: copyOf(normalization.scale),
          bias: copyOf(normalization.bias),
          epsilon: normalization.epsilon,
        }
      : undefined;
  for (let group = 0; group < groups; group++) {
    const of = (name: SumName) => {
      const all = totals.get(name)!;
      const length = all.length / groups;
      return all.subarray(group * length, (group + 1) * length);
    };
    const e = of("e");
    const row = group * e.length;
    const first = offset + row;
    const shiftBy = (constant: ArrayLike<number>) => {
      if (shift === undefined) return;
      for (let r = 0; r < e.length; r++) constants![first + r] += shift.sign * constant[r];
    };
    if (weights === undefined) {
      shiftBy(e.map((total) => total / observations));
      continue;
    }
    const normal = { observations, xx: of("xx"), xe: of("xe"), x: of("x"), e };
    const regressors = normal.x.length;
    const rows = weights.subarray(row * regressors, (row + e.length) * regressors);
    const solution = solveBounded(normal, rows, shift !== undefined);
    solution.weight.forEach((delta, i) => {
      rows[i] += delta;
    });
    shiftBy(solution.constant);
    if (scaling === "gain") {
      const spread = spreadOf(rows, normal);
      shiftBy(gain(rows, spread, gainsOf(spread, { y: of("y"), yy: of("yy") }, observations)));
    }
    if (normalized) restate(rows, spreadOf(rows, normal), observations, normalized, first);
  }
  return corrected;
}

/** The correction of `rows`, with a ridge that does not let them grow too much. */
function solveBounded(sums: NormalSums, rows: Float32Array, withConstant: boolean): Correction {
  const most = MOST_GROWTH * norm(rows);
  let ridge = ridgeOf(sums.x.length, sums.observations);
  for (;;) {
    const solution = solveNormal(sums, ridge, withConstant);
    const size = norm(rows.map((weight, i) => weight + solution.weight[i]));
    // Not so for what is no number, which no ridge would change.
    if (most > 0 && size > most) ridge *= 2;
    else return solution;
  }
}

function norm(values: Float32Array): number {
  return Math.sqrt(values.reduce((sum, value) => sum + value ** 2, 0));
}

/** Multiplies `rows`, by so much at most; what is to be added so that they make the same on average. */
function gain(rows: Float32Array, { means }: Spread, gains: Float64Array): Float64Array {
  const regressors = rows.length / means.length;
  return means.map((mean, r) => {
    const factor = Math.min(gains[r], MOST_GAIN);
    for (let i = r * regressors; i < (r + 1) * regressors; i++) rows[i] *= factor;
    return (1 - factor) * mean;
  });
}
