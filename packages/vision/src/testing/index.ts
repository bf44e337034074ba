/** @file Small networks and samples for tests. */
import { type Model, type Parameter, Random, type Samples } from "@espalier/core";
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
