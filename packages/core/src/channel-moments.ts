/** @file What the channels of layers have to do with each other. */
import {
  broadcastTo,
  concat,
  cost,
  type Executor,
  float32Data,
  gather,
  input,
  matmul,
  multiply,
  reshape,
  simplify,
  sizeOf,
  transpose,
  type Value,
} from "@espalier/graph";
import { addInto, forEachBatch } from "./batches.ts";
import { bindParameters } from "./bind.ts";
import { type ComponentGroup, readersOf } from "./components.ts";
import type { ChannelMoments } from "./elimination.ts";
import { fitBatch } from "./fit-batch.ts";
import type { Model, ModelGraph } from "./model.ts";
import { objectiveOf } from "./objective.ts";
import { PerLength } from "./per-length.ts";
import { type Place, placesOf } from "./places.ts";
import type { Random } from "./random.ts";
import { longest, type Samples } from "./samples.ts";

export interface ChannelMomentsOptions {
  readonly executor: Executor;
  readonly samples: Samples;
  /** Of the probabilities that gradients are of, as in `EstimateOptions`. */
  readonly temperature: number;
  /** Samples at a time. It does not change the result beyond rounding. */
  readonly batchSize: number;
  /** Draws a random sign for every sample and class: those of the first probe of `estimate`. */
  readonly random: Random;
  readonly signal?: AbortSignal | undefined;
}

/**
 * The moments of groups whose components are channels that one weight reads, so that it can be fitted
 * to do with fewer of them; of no other groups. One backward pass.
 *
 * @throws EspalierError `out-of-memory` if not even one sample at a time keeps to the memory limit.
 */
export async function measureChannelMoments(
  model: Model,
  all: readonly ComponentGroup[],
  { executor, samples, temperature, batchSize: wanted, random, signal }: ChannelMomentsOptions,
): Promise<ReadonlyMap<ComponentGroup, ChannelMoments>> {
  const objective = objectiveOf(model);
  const classes = model.classes.length;
  const readers = readersOf(model, all);
  const groups = all.filter((group) => readers.get(group)?.length === 1);
  const prepare = (batchSize: number, length: number | undefined) => {
    const { graph, constants } = bindParameters(model, batchSize, "evaluation", length);
    const directions = input("directions", graph.logits.shape);
    const counted = input("counted", [batchSize]);
    const seed = objective.root(graph.logits, directions, temperature);
    const outputs: Record<string, Value> = {};
    placesOf(graph, groups, seed, readers).forEach(([place, ...others], i) => {
      if (others.length > 0) return;
      outputs[`activations.${i}`] = secondMoments(withConstant(place, graph, counted));
      outputs[`gradients.${i}`] = secondMoments(channelsOf(place, place.cotangent));
    });
    const { peakBytes } = cost(simplify(Object.values(outputs)));
    return { batchSize, constants, outputs, peakBytes };
  };
  if (groups.length === 0) return new Map();
  const { batchSize } = fitBatch(executor, Math.min(wanted, samples.count), (size) =>
    prepare(size, longest(samples)),
  );
  const programs = new PerLength((length) => executor.compile(prepare(batchSize, length)));
  const totals = new Map<string, Float64Array>();
  try {
    await forEachBatch({ samples, batchSize, signal }, async (batch, start, count) => {
      const program = await programs.for(batch);
      const counted = Float32Array.from({ length: batchSize }, (_, n) => (n < count ? 1 : 0));
      // Zero for samples that fill the batch up, so that nothing comes back to them.
      const directions = new Float32Array(batchSize * classes);
      for (let n = 0; n < count; n++) {
        const signs = random.stream("probe", start + n, 0);
        for (let c = 0; c < classes; c++) directions[n * classes + c] = signs.sign();
      }
      const results = await program.run({ ...batch.feeds, directions, counted });
      for (const [name, tensor] of Object.entries(results)) {
        addInto(totals, name, float32Data(tensor));
      }
    });
  } finally {
    await programs.dispose();
  }
  return new Map(
    groups.flatMap((group, i) => {
      const activations = totals.get(`activations.${i}`);
      const gradients = totals.get(`gradients.${i}`);
      if (activations === undefined || gradients === undefined) return [];
      const [observations] = activations;
      const moments = {
        activations: activations.map((total) => total / observations),
        gradients: gradients.map((total) => total / samples.count),
      };
      return [[group, moments] as const];
    }),
  );
}

/** What `value`, which is laid out like that of `place`, has in the channels of the components. */
function channelsOf({ axis, columns }: Place, value: Value): Value {
  const isWhole =
    columns.length === value.shape[axis] && columns.every((column, i) => column === i);
  return channelsFirst(isWhole ? value : gather(value, [...columns], axis), axis);
}

/** A one and the channels at every position that counts, zeros elsewhere: [1 + channels, positions]. */
function withConstant(place: Place, graph: ModelGraph, counted: Value): Value {
  const { value, axis } = place;
  const [batch, ...rest] = value.shape;
  const ofSamples = reshape(counted, [batch, ...rest.map(() => 1)]);
  const { mask } = graph;
  const isMasked = mask !== undefined && axis === 2 && mask.shape[1] === value.shape[1];
  const present = isMasked
    ? multiply(ofSamples, reshape(mask, [batch, value.shape[1], 1]))
    : ofSamples;
  const one = value.shape.map((length, k) => (k === axis ? 1 : length));
  const constant = channelsFirst(broadcastTo(present, one), axis);
  return concat([constant, multiply(channelsOf(place, value), constant)], 0);
}

/** [batch, …] with channels on `axis` to [channels, all else]. */
function channelsFirst(value: Value, axis: number): Value {
  const order = [axis, ...[...value.shape.keys()].filter((k) => k !== axis)];
  const turned = transpose(value, order);
  return reshape(turned, [turned.shape[0], sizeOf(turned.shape.slice(1))]);
}

function secondMoments(channels: Value): Value {
  return matmul(channels, transpose(channels));
}
