/** @file Weights fitted anew after pruning, so that layers put out what they did before. */
import { throwIfAborted } from "@espalier/base";
import {
  concat,
  type Executor,
  findUses,
  gather,
  input,
  matmul,
  multiply,
  reshape,
  sizeOf,
  subtract,
  sum,
  topologicalOrder,
  transpose,
  type Value,
} from "@espalier/graph";
import { prefetch } from "./batches.ts";
import { fitBatch } from "./fit-batch.ts";
import { type NormalSums, solveNormal } from "./least-squares.ts";
import type { Model, ModelGraph, Parameter, Shift } from "./model.ts";
import type { Random } from "./random.ts";
import type { Samples } from "./samples.ts";
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

// The penalty on changes of a weight, relative to the mean square of its regressors; decision 016.
const RIDGE = 1e-3;

// Of a layer, as many positions are looked at as give this many observations for every unknown of a
// row: enough for the normal equations to be determined well, since positions are correlated.
const OBSERVATIONS_PER_UNKNOWN = 64;

// The normal equations of a row with n unknowns take 12n² bytes and n³/3 multiplications: up to 512
// channels of 3×3, half a minute of one core and a quarter of a gigabyte (decision 023).
const MOST_UNKNOWNS = 4608;

/**
 * `pruned`, which is `dense` pruned, with every weight that is new or reads something else than
 * before fitted anew, first layers first: on `samples`, what it makes of the activations of the
 * pruned model is as close as can be, in least squares, to what the same channels were in `dense`
 * (asymmetric reconstruction, He et al. 2017, arXiv 1707.06168). A ridge holds weights to what they
 * were. Constants go to biases and running means. Nothing but weights and these changes, and nothing
 * at all where nothing was pruned.
 *
 * Weights with more than 4,608 numbers a row are left as they are, but for their constants. Where samples have lengths, nothing is
 * fitted: activations are held for all batches at once, which have to be of one shape.
 *
 * @throws EspalierError `out-of-memory` if not even one sample at a time keeps to the memory limit.
 */
export async function compensate(
  dense: Model,
  pruned: Model,
  samples: Samples,
  options: CompensateOptions,
): Promise<Model> {
  const { executor, signal, onProgress } = options;
  if (samples.lengths !== undefined) return pruned;
  const wanted = Math.min(options.batchSize, samples.count);
  const { fits, batchSize, ...prepared } = fitBatch(executor, wanted, (size) =>
    prepare(dense, pruned, samples.count, size, options),
  );
  let parameters = pruned.parameters;
  const constantsOf = (graph: ModelGraph, of: Model["parameters"]) =>
    new Map([...graph.parameters].map(([name, value]) => [value, of.get(name)!.data]));
  for (const [i, fit] of fits.entries()) {
    const targets = await prepared.targets.open(
      i,
      executor,
      constantsOf(prepared.dense, dense.parameters),
    );
    const sums = await prepared.sums.open(i, executor, constantsOf(prepared.pruned, parameters));
    const totals: Float64Array[] = [];
    try {
      const images = Object.keys(prepared.pruned.inputs);
      const needsImages = images.some((name) => targets.inputs.has(name) || sums.inputs.has(name));
      const countAt = (batch: number) => Math.min(batchSize, samples.count - batch * batchSize);
      const batches = Math.ceil(samples.count / batchSize);
      const feedsOf = async (batch: number) => {
        const start = batch * batchSize;
        const rows = Array.from({ length: batchSize }, (_, n) =>
          start + n < samples.count ? start + n : start,
        );
        return needsImages ? (await samples.batch(rows)).feeds : {};
      };
      let batch = 0;
      for await (const feeds of prefetch(batches, feedsOf)) {
        throwIfAborted(signal);
        const count = countAt(batch);
        const counted = Float32Array.from({ length: batchSize }, (_, n) => (n < count ? 1 : 0));
        const [target] = await targets.run(batch, feeds);
        const results = await sums.run(batch, { ...feeds, target, counted });
        results.forEach((result, k) => {
          totals[k] ??= new Float64Array(result.length);
          const total = totals[k];
          for (let j = 0; j < result.length; j++) total[j] += result[j];
        });
        batch++;
      }
    } finally {
      await targets.dispose();
      await sums.dispose();
    }
    parameters = correct(parameters, fit, totals);
    onProgress?.(i + 1, fits.length);
  }
  return parameters === pruned.parameters ? pruned : pruned.withParameters(parameters);
}

/** One weight to be fitted. */
interface Fit {
  readonly weight: string;
  readonly shift: Shift | undefined;
  /** The first of the weight's channels among those of the shift. */
  readonly offset: number;
  readonly observations: number;
  /** Of rows that see different things. */
  readonly groups: number;
  /** Whether its normal equations are small enough to be solved. */
  readonly solvable: boolean;
}

/** Programs for batches of one size: the wanted outputs of each weight, and the sums to fit it by. */
function prepare(
  denseModel: Model,
  prunedModel: Model,
  samples: number,
  batchSize: number,
  { random, fits: isWanted = () => true, executor }: CompensateOptions,
) {
  const dense = denseModel.build(batchSize, "evaluation");
  const pruned = prunedModel.build(batchSize, "evaluation");
  const layers = layersOf(dense);
  const fits: Fit[] = [];
  const targets: Value[][] = [];
  const sums: Value[][] = [];
  for (const { name, user, position } of changedWeights(denseModel, prunedModel, dense, pruned)) {
    const regressors = user.operation.regressors?.(user, position);
    const { layer, channels, shift, offset } = pruned.sites.get(name)!;
    const source = layers.get(layer);
    if (!isWanted(name) || regressors === undefined || source === undefined) continue;
    const [, groups, unknowns, available] = regressors.shape;
    const solvable = unknowns <= MOST_UNKNOWNS;
    if (!solvable && shift === undefined) continue;
    const count = Math.min(available, Math.ceil((OBSERVATIONS_PER_UNKNOWN * unknowns) / samples));
    const positions = random.stream("positions", name).permutation(available).subarray(0, count);
    const chosen = [...positions].sort((a, b) => a - b);
    const rows = channels.map((channel) => source.channels.indexOf(channel));
    const wanted = gather(gather(source.rows, rows, 1), chosen, 2);

    const target = input("target", wanted.shape);
    const counted = reshape(input("counted", [batchSize]), [batchSize, 1, 1, 1]);
    // [N, groups, rows, positions] to [groups, rows, observations].
    const flat = (value: Value) =>
      reshape(transpose(multiply(value, counted), [1, 2, 0, 3]), [
        groups,
        value.shape[2],
        batchSize * count,
      ]);
    const seen = gather(regressors, chosen, 3);
    const weight = pruned.parameters.get(name)!;
    const groupRows = channels.length / groups;
    const made = matmul(reshape(weight, [groups, groupRows, unknowns]), seen);
    const e = flat(subtract(reshape(target, made.shape), made));
    const x = flat(seen);
    const square = solvable ? [matmul(x, transpose(x)), matmul(x, transpose(e))] : [];
    const observations = samples * count;
    fits.push({ weight: name, shift, offset, observations, groups, solvable });
    targets.push([wanted]);
    sums.push([sum(e, [2]), sum(x, [2]), ...square]);
  }
  // Half of the memory for what is held, the rest for what runs.
  const batches = Math.ceil(samples / batchSize);
  const mostBytes = (executor.memoryLimit ?? Number.POSITIVE_INFINITY) / 4 / batches;
  const walks = { targets: new Walk(targets, mostBytes), sums: new Walk(sums, mostBytes) };
  const peakBytes = Math.max(walks.targets.peakBytes, walks.sums.peakBytes);
  return { batchSize, peakBytes, fits, dense, pruned, ...walks };
}

/**
 * Weights of `pruned` that make something of changed values, or rows that another weight made before:
 * in the order in which values pass through them.
 */
function changedWeights(
  denseModel: Model,
  prunedModel: Model,
  dense: ModelGraph,
  pruned: ModelGraph,
) {
  const changed = new Set<Value>();
  for (const [name, value] of pruned.parameters) {
    if (!isSame(denseModel.parameters.get(name), prunedModel.parameters.get(name)!)) {
      changed.add(value);
    }
  }
  for (const value of topologicalOrder([pruned.logits])) {
    if (value.inputs.some((operand) => changed.has(operand))) changed.add(value);
  }
  return usesOf(pruned)
    .filter(({ name, user, position }) => {
      const before = new Set(dense.sites.get(name)?.channels);
      const made = pruned.sites.get(name)!.channels;
      const reads = user.inputs.some((operand, i) => i !== position && changed.has(operand));
      return reads || made.some((channel) => !before.has(channel));
    })
    .sort((a, b) => a.user.id - b.user.id);
}

/** Where each weight with a site is used; those of layers before one without channels are not. */
function usesOf({ sites, parameters, logits }: ModelGraph) {
  const reached = new Set(topologicalOrder([logits]));
  const names = [...sites.keys()].filter((name) => reached.has(parameters.get(name)!));
  const uses = findUses(
    [logits],
    names.map((name) => parameters.get(name)!),
  );
  return names.map((name) => ({ name, ...uses.get(parameters.get(name)!)! }));
}

function isSame(before: Parameter | undefined, after: Parameter): boolean {
  return (
    before !== undefined &&
    before.shape.join() === after.shape.join() &&
    before.data.every((x, i) => x === after.data[i])
  );
}

/** What the weights of each layer make: [N, channels, positions], and which channels. */
function layersOf(graph: ModelGraph) {
  const layers = new Map<string, { rows: Value; channels: readonly number[] }>();
  for (const { name, user, position } of usesOf(graph)) {
    const { layer, channels } = graph.sites.get(name)!;
    const axis = user.operation.rowAxis?.(user, position);
    if (axis === undefined) continue;
    const order = [0, axis, ...[...user.shape.keys()].filter((k) => k !== 0 && k !== axis)];
    const turned = transpose(user, order);
    const rows = reshape(turned, [turned.shape[0], turned.shape[1], sizeOf(turned.shape.slice(2))]);
    const others = layers.get(layer);
    layers.set(layer, {
      rows: others === undefined ? rows : concat([others.rows, rows], 1),
      channels: [...(others?.channels ?? []), ...channels],
    });
  }
  return layers;
}

/** `parameters` with one weight changed so that its errors, summed up in `sums`, become least. */
function correct(
  parameters: Model["parameters"],
  { weight, shift, offset, observations, groups, solvable }: Fit,
  totals: readonly Float64Array[],
): Model["parameters"] {
  const corrected = new Map(parameters);
  const copyOf = (name: string) => {
    const parameter = parameters.get(name)!;
    const data = parameter.data.slice();
    corrected.set(name, { ...parameter, data });
    return data;
  };
  const weights = solvable ? copyOf(weight) : undefined;
  const constants = shift && copyOf(shift.parameter);
  for (let group = 0; group < groups; group++) {
    const [e, x, xx, xe] = totals.map((all) => {
      const length = all.length / groups;
      return all.subarray(group * length, (group + 1) * length);
    });
    const sums: NormalSums = { observations, xx, xe, x, e };
    const solution = solvable
      ? solveNormal(sums, RIDGE, shift !== undefined)
      : { weight: undefined, constant: e.map((total) => total / observations) };
    const row = group * e.length;
    solution.weight?.forEach((delta, i) => {
      weights![row * x.length + i] += delta;
    });
    solution.constant.forEach((delta, i) => {
      if (shift !== undefined) constants![offset + row + i] += shift.sign * delta;
    });
  }
  return corrected;
}
