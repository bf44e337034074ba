/** @file Small networks and samples for tests, and what must hold of every family. */
import {
  applyDecisions,
  bindParameters,
  type ComponentGroup,
  componentGroups,
  type Decision,
  type Decisions,
  type Model,
  type Parameter,
  Random,
  type Samples,
} from "@espalier/core";
import {
  type AdditionPolicy,
  coupleSlices,
  type Executor,
  float32Data,
  sizeOf,
} from "@espalier/graph";
import { cifarResNet, cifarResNetConfig, type Shortcut } from "../cifar-resnet.ts";

export interface TinyOptions {
  readonly shortcut?: Shortcut;
  readonly widths?: readonly [number, number, number];
  readonly depth?: number;
  /** Height and width of the images. */
  readonly size?: number;
  readonly classes?: number;
  readonly seed?: number;
}

/**
 * A ResNet of 8 layers on small images, whose normalisation has random statistics and factors, as if
 * it had been trained.
 */
export function tinyResNet(options: TinyOptions = {}): Model {
  const { shortcut = "projection", widths = [4, 6, 8], depth = 8, size = 8, classes = 3 } = options;
  const base = cifarResNetConfig(depth, shortcut, widths);
  const random = new Random(options.seed ?? 0);
  const model = cifarResNet.initialize(
    {
      ...base,
      num_labels: classes,
      id2label: Object.fromEntries(Array.from({ length: classes }, (_, i) => [i, `class ${i}`])),
      image: { ...base.image, shape: [3, size, size] },
    },
    random,
  );
  return randomStatistics(model, random);
}

/** `model` with random statistics and factors of its normalisation, as if it had been trained. */
export function randomStatistics(model: Model, random: Random): Model {
  const parameters = new Map<string, Parameter>();
  for (const [name, parameter] of model.parameters) {
    const { kind, data } = parameter;
    const stream = random.stream("statistics", name);
    const spread = name.endsWith("running_var") || kind === "normalization" ? 0.5 : 0.2;
    const changed = kind === "normalization" || kind === "statistic";
    parameters.set(name, {
      ...parameter,
      data: changed ? data.map((value) => value + spread * (stream.uniform() - 0.4)) : data,
    });
  }
  return model.withParameters(parameters);
}

/** `count` images of noise with random labels, for `model`. */
export function noiseSamples(model: Model, count: number, seed = 1): Samples {
  const { preprocessing } = model;
  if (preprocessing.kind !== "image") throw new TypeError("expected a model of images");
  const { shape } = preprocessing;
  const length = shape.reduce((a, b) => a * b);
  const random = new Random(seed);
  const images = Array.from({ length: count }, (_, i) => {
    const pixels = random.stream("image", i);
    return Float32Array.from({ length }, () => pixels.normal());
  });
  const labels = images.map((_, i) => random.stream("label", i).integer(model.classes.length));
  return {
    count,
    batch: async (indices) => {
      const pixels = new Float32Array(indices.length * length);
      Array.from(indices).forEach((index, n) => {
        pixels.set(images[index], n * length);
      });
      return {
        feeds: { pixel_values: pixels },
        labels: Int32Array.from(indices, (index) => labels[index]),
      };
    },
  };
}

/** The logits of `model` for `count` images of noise. */
export async function logitsOf(model: Model, executor: Executor, count = 3): Promise<Float32Array> {
  const { graph, constants } = bindParameters(model, count, "evaluation");
  const program = await executor.compile({ outputs: { logits: graph.logits }, constants });
  const { feeds } = await noiseSamples(model, count).batch([...Array(count).keys()]);
  const { logits } = await program.run(feeds);
  await program.dispose();
  return float32Data(logits);
}

/**
 * Random decisions for the components of `groups`: half are kept, and one of each group at least.
 *
 * @param implants Whether some become implants, where these are smaller.
 */
export function randomDecisions(
  groups: readonly ComponentGroup[],
  random: Random,
  implants = false,
): Map<string, Decision[]> {
  return new Map(
    groups.map(({ name, count, implantable }) => {
      const list = Array.from({ length: count }, (): Decision => {
        if (random.uniform() < 0.5) return "keep";
        return implants && implantable && random.uniform() < 0.5 ? "implant" : "prune";
      });
      if (!list.includes("keep")) list[0] = "keep";
      return [name, list];
    }),
  );
}

/** `model` with everything that goes with its removed components set to zero, and nothing removed. */
export function maskComponents(model: Model, decisions: Decisions, policy: AdditionPolicy): Model {
  const graph = model.build(1, "evaluation");
  const coupled = coupleSlices(
    [graph.logits],
    new Map(
      [...graph.parameters].map(([name, value]) => [
        name,
        { value, producesRows: model.parameters.get(name)!.kind === "weight" },
      ]),
    ),
    policy,
  );
  const byRow = new Map(
    coupled.flatMap((entry) =>
      entry.slices
        .filter(({ axis }) => axis === 0)
        .map(({ parameter, index }) => [`${parameter} ${index}`, entry]),
    ),
  );
  const parameters = new Map<string, Parameter>(
    [...model.parameters].map(([name, { data, ...rest }]) => [
      name,
      { ...rest, data: data.slice() },
    ]),
  );
  for (const { name, rows } of componentGroups(model, policy)) {
    decisions.get(name)?.forEach((decision, i) => {
      if (decision !== "prune") return;
      const { parameter: first, indices } = rows[0];
      for (const { parameter, axis, index } of byRow.get(`${first} ${indices[i]}`)!.slices) {
        const { shape, data } = parameters.get(parameter)!;
        const inner = sizeOf(shape.slice(axis + 1));
        for (let start = index * inner; start < data.length; start += shape[axis] * inner) {
          data.fill(0, start, start + inner);
        }
      }
    });
  }
  return model.withParameters(parameters);
}

/**
 * How far a pruned model is from the masked one: random components are removed from one copy of
 * `model` and set to zero in another, which must compute the same. Returns the largest difference of
 * their logits, relative to the largest logit: rounding, if the family is right.
 *
 * Give the model random statistics first (`randomStatistics`): fresh ones hide mistakes.
 */
export async function prunedMinusMasked(
  model: Model,
  executor: Executor,
  { policy = "together", seed = 0 }: { policy?: AdditionPolicy; seed?: number } = {},
): Promise<number> {
  const groups = componentGroups(model, policy);
  const decisions = randomDecisions(groups, new Random(seed));
  const pruned = await logitsOf(applyDecisions(model, groups, decisions), executor);
  const masked = await logitsOf(maskComponents(model, decisions, policy), executor);
  const scale = Math.max(...masked.map(Math.abs), 1e-3);
  return Math.max(...pruned.map((logit, i) => Math.abs(logit - masked[i]))) / scale;
}
