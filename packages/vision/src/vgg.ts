/**
 * @file VGG networks (Simonyan and Zisserman 2014, arXiv 1409.1556) with and without batch
 * normalisation, for CIFAR and for ImageNet.
 */
import type { CheckpointSource } from "@espalier/core";
import type { Value } from "@espalier/graph";
import * as z from "zod";
import { cifarImage, cifarLabels } from "./cifar.ts";
import { defineVisionFamily, size, type VisionConfig, visionConfig } from "./family.ts";
import { imagenetImage, imagenetLabels } from "./imagenet.ts";
import type { Feature, Network } from "./network.ts";

export interface VggConfig extends VisionConfig {
  readonly model_type: "vgg";
  /** Convolutions of each of the five stages. */
  readonly depths: readonly number[];
  /** Channels of each stage. */
  readonly hidden_sizes: readonly number[];
  readonly batch_norm: boolean;
  /** Whether convolutions have biases. */
  readonly conv_bias: boolean;
  /** How the last stage is pooled. */
  readonly last_pool: "average" | "max";
  /** Neurons of the linear layers before the last. */
  readonly classifier: readonly number[];
}

const stageCount = 5;
const schema = visionConfig.extend({
  model_type: z.literal("vgg"),
  depths: z.array(z.int().min(1).max(100)).length(stageCount),
  hidden_sizes: z.array(size).length(stageCount),
  batch_norm: z.boolean(),
  conv_bias: z.boolean(),
  last_pool: z.enum(["average", "max"]),
  classifier: z.array(size).max(100),
});

const depthsOf: Readonly<Record<number, readonly number[]>> = {
  11: [1, 1, 2, 2, 2],
  13: [2, 2, 2, 2, 2],
  16: [2, 2, 3, 3, 3],
  19: [2, 2, 4, 4, 4],
};

type Variant = Pick<VggConfig, "batch_norm" | "conv_bias" | "last_pool" | "classifier">;

// As in network slimming, EigenDamage and HAP.
const slim: Variant = { batch_norm: true, conv_bias: false, last_pool: "average", classifier: [] };

/** The configuration of a VGG of `depth` layers for CIFAR-10: one linear layer, unless said otherwise. */
export function vggConfig(
  depth: 11 | 13 | 16 | 19,
  variant: Partial<Variant> & Partial<Pick<VggConfig, "num_labels" | "id2label" | "image">> = {},
): VggConfig {
  return {
    model_type: "vgg",
    depths: depthsOf[depth],
    hidden_sizes: [64, 128, 256, 512, 512],
    ...slim,
    ...cifarLabels(),
    image: cifarImage,
    ...variant,
  };
}

function forward(network: Network, image: Feature, config: VggConfig): Value {
  const { depths, hidden_sizes, batch_norm, conv_bias, last_pool, classifier, num_labels } = config;
  let x = image;
  // Layers are called by their places in a list that counts activations and pools as well.
  let place = 0;
  depths.forEach((depth, stage) => {
    for (let layer = 0; layer < depth; layer++) {
      x = network.conv(`features.${place++}`, x, {
        outputs: hidden_sizes[stage],
        kernel: 3,
        padding: 1,
        bias: conv_bias,
      });
      if (batch_norm) x = network.batchNorm(`features.${place++}`, x);
      x = network.relu(x);
      place++;
    }
    const pool = stage === depths.length - 1 && last_pool === "average" ? "averagePool" : "maxPool";
    x = network[pool](x, { kernel: 2, stride: 2 });
    place++;
  });
  x = network.flatten(x);
  if (classifier.length === 0) {
    return network.linear("classifier", x, num_labels, "normal-fan-in").value;
  }
  classifier.forEach((neurons, i) => {
    // An activation and a dropout lie between two linear layers.
    x = network.relu(network.linear(`classifier.${3 * i}`, x, neurons, "normal-fan-in"));
  });
  return network.linear(`classifier.${3 * classifier.length}`, x, num_labels, "normal-fan-in")
    .value;
}

function canonicalName(name: string): string | undefined {
  if (name.endsWith(".num_batches_tracked")) return undefined;
  return name.replace(/^(module\.)?features?\./, "features.");
}

function recognize({ tensors }: CheckpointSource): VggConfig | undefined {
  const shapes = new Map(
    [...tensors].map(([name, { shape }]) => [canonicalName(name) ?? name, shape]),
  );
  const places = [...shapes.keys()]
    .flatMap((name) => /^features\.(\d+)\.weight$/.exec(name)?.[1] ?? [])
    .map(Number)
    .sort((a, b) => a - b);
  const convs = places.filter((place) => shapes.get(`features.${place}.weight`)!.length === 4);
  const batch_norm = convs.length < places.length;
  const period = batch_norm ? 3 : 2;
  const depth = convs.length + 3;
  const depths = depthsOf[depth];
  const expected = (depths ?? []).flatMap((count, stage) => Array<number>(count).fill(stage));
  // A pool lies between stages.
  if (depths === undefined || convs.some((place, i) => place !== period * i + expected[i])) return;
  const kernel = shapes.get("features.0.weight")!;
  const linear = [...shapes]
    .filter(([name, shape]) => /^classifier(\.\d+)?\.weight$/.test(name) && shape.length === 2)
    .sort(([a], [b]) => Number(/\d+/.exec(a)?.[0] ?? 0) - Number(/\d+/.exec(b)?.[0] ?? 0))
    .map(([, shape]) => shape);
  if (linear.length === 0 || kernel[2] !== 3) return undefined;
  const firsts = depths.map((_, stage) => convs[expected.indexOf(stage)]);
  const hidden_sizes = firsts.map((place) => shapes.get(`features.${place}.weight`)![0]);
  // 224 pixels in both directions leave 7 after five pools.
  const large = linear[0][1] === 49 * hidden_sizes[4];
  const labels = linear.at(-1)![0];
  return {
    ...vggConfig(depth as 16),
    ...(large ? { ...imagenetLabels(labels), image: imagenetImage } : cifarLabels(labels)),
    hidden_sizes,
    batch_norm,
    conv_bias: shapes.has("features.0.bias"),
    // Projects that call the list "feature" come from network slimming, which averages at the end;
    // those that call it "features", such as torchvision, take the maximum.
    last_pool: [...tensors.keys()].some((name) => name.startsWith("features.")) ? "max" : "average",
    classifier: linear.slice(0, -1).map(([neurons]) => neurons),
  };
}

const full: Variant = {
  batch_norm: true,
  conv_bias: true,
  last_pool: "max",
  classifier: [4096, 4096],
};
const presets: Readonly<Record<string, VggConfig>> = Object.fromEntries(
  ([16, 19] as const).flatMap((depth) => {
    const imagenet = { ...imagenetLabels(1000), image: imagenetImage };
    return [
      [`vgg${depth}-bn-cifar10`, vggConfig(depth)],
      [`vgg${depth}-bn-imagenet`, vggConfig(depth, { ...full, ...imagenet })],
    ];
  }),
);

/** VGG-11, 13, 16 and 19. */
export const vgg = defineVisionFamily<VggConfig>({
  name: "vgg",
  schema,
  presets,
  presetFields: ["depths", "hidden_sizes", "batch_norm", "classifier"],
  piecewiseLinear: true,
  recognize,
  canonicalName,
  forward,
});
