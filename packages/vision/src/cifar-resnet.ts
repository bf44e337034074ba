/**
 * @file The ResNets for CIFAR (He et al. 2016, arXiv 1512.03385, section 4.2): 6n + 2 layers in
 * three stages of n blocks, and their wider relatives.
 */
import type { CheckpointSource, ImagePreprocessing } from "@espalier/core";
import type { Value } from "@espalier/graph";
import * as z from "zod";
import { cifarImage, cifarLabels } from "./cifar.ts";
import { defineVisionFamily, layerCount, size, type VisionConfig, visionConfig } from "./family.ts";
import type { Feature, Network } from "./network.ts";

/**
 * How a block's input reaches its output where the number of channels changes: by a 1×1 convolution
 * ("projection", option B of the paper) or by zeros around the channels ("padding", option A).
 */
export type Shortcut = "projection" | "padding";

export interface CifarResNetConfig extends VisionConfig {
  readonly model_type: "cifar-resnet";
  /** Convolutions, without those of the shortcuts, and the linear layer. */
  readonly depth: number;
  readonly shortcut: Shortcut;
  /** Channels of the first convolution; by default as many as the first stage has. */
  readonly stem?: number | undefined;
  /** Channels of the three stages. */
  readonly widths: readonly [number, number, number];
}

const schema = visionConfig
  .extend({
    model_type: z.literal("cifar-resnet"),
    depth: layerCount.refine((depth) => depth > 2 && depth % 6 === 2, { error: "expected 6n + 2" }),
    shortcut: z.enum(["projection", "padding"]),
    stem: size.optional(),
    widths: z.tuple([size, size, size]),
  })
  .refine(
    ({ shortcut, stem, widths }) => shortcut === "projection" || (stem ?? widths[0]) === widths[0],
    {
      error: "expected a stem as wide as the first stage where shortcuts are padded",
      path: ["stem"],
    },
  )
  .refine(
    ({ shortcut, widths }) =>
      shortcut === "projection" ||
      [1, 2].every((i) => widths[i] >= widths[i - 1] && (widths[i] - widths[i - 1]) % 2 === 0),
    { error: "expected each stage to be wider by an even number", path: ["widths"] },
  );

// ImageNet's, with which the public option-A checkpoints were trained (akamaster/pytorch_resnet_cifar10).
const imagenetImage: ImagePreprocessing = {
  shape: [3, 32, 32],
  mean: [0.485, 0.456, 0.406],
  std: [0.229, 0.224, 0.225],
};

/** The configuration of a ResNet for CIFAR-10. */
export function cifarResNetConfig(
  depth: number,
  shortcut: Shortcut = "projection",
  widths: CifarResNetConfig["widths"] = [16, 32, 64],
  stem?: number,
): CifarResNetConfig {
  return {
    model_type: "cifar-resnet",
    depth,
    shortcut,
    ...(stem === undefined ? {} : { stem }),
    widths,
    ...cifarLabels(),
    image: shortcut === "projection" ? cifarImage : imagenetImage,
  };
}

function forward(network: Network, image: Feature, config: CifarResNetConfig): Value {
  const blocks = (config.depth - 2) / 6;
  const { widths } = config;
  const layer = (name: string, x: Feature, outputs: number, stride: number) =>
    network.batchNorm(
      name.replace(/conv(\d)$/, "bn$1"),
      network.conv(name, x, { outputs, kernel: 3, stride, padding: 1 }),
    );

  let width = config.stem ?? widths[0];
  let x = network.relu(layer("conv1", image, width, 1));
  widths.forEach((outputs, stage) => {
    for (let block = 0; block < blocks; block++) {
      const name = `layer${stage + 1}.${block}`;
      const stride = stage > 0 && block === 0 ? 2 : 1;
      const inner = network.relu(layer(`${name}.conv1`, x, outputs, stride));
      const branch = layer(`${name}.conv2`, inner, outputs, 1);
      let shortcut = x;
      if (stride > 1 && config.shortcut === "padding") {
        shortcut = network.subsample(x, stride, (outputs - width) / 2);
      } else if (stride > 1 || width !== outputs) {
        const projected = network.conv(`${name}.downsample.0`, x, { outputs, kernel: 1, stride });
        shortcut = network.batchNorm(`${name}.downsample.1`, projected);
      }
      x = network.relu(network.join([branch, shortcut]));
      width = outputs;
    }
  });
  return network.linear("fc", network.globalAverage(x), config.num_labels, "normal-fan-in").value;
}

function canonicalName(name: string): string | undefined {
  if (name.endsWith(".num_batches_tracked")) return undefined;
  return name.replace(/^linear\./, "fc.").replace(/\.shortcut\./, ".downsample.");
}

function recognize({ tensors }: CheckpointSource): CifarResNetConfig | undefined {
  const shapes = new Map(
    [...tensors].map(([name, { shape }]) => [canonicalName(name) ?? name, shape]),
  );
  const stages = [1, 2, 3].map((stage) => shapes.get(`layer${stage}.0.conv1.weight`));
  const first = shapes.get("conv1.weight");
  // ImageNet's ResNets have a fourth stage and a 7×7 first layer.
  if (shapes.has("layer4.0.conv1.weight") || first === undefined || first[3] !== 3)
    return undefined;
  if (stages.some((shape) => shape === undefined || shape[3] !== 3)) return undefined;
  let blocks = 1;
  while (shapes.has(`layer1.${blocks}.conv1.weight`)) blocks++;
  const shortcut = shapes.has("layer2.0.downsample.0.weight") ? "projection" : "padding";
  const widths = stages.map((shape) => shape![0]) as [number, number, number];
  const stem = first[0] === widths[0] ? undefined : first[0];
  const config = cifarResNetConfig(6 * blocks + 2, shortcut, widths, stem);
  return { ...config, ...cifarLabels(shapes.get("fc.weight")?.[0]) };
}

const presets: Readonly<Record<string, CifarResNetConfig>> = {
  ...Object.fromEntries(
    [20, 32, 44, 56, 110].map((depth) => [`resnet${depth}-cifar10`, cifarResNetConfig(depth)]),
  ),
  // The wide networks of HAP and EHAP (arXiv 2306.07030), which are ResNets of the kind above: their
  // activations come after their convolutions. 28 counts two shortcuts.
  "wideresnet32-cifar10": cifarResNetConfig(32, "projection", [64, 128, 256]),
  "wideresnet28-8-cifar10": cifarResNetConfig(26, "projection", [128, 256, 512], 16),
};

/** ResNet-20, 32, 44, 56 and 110 for CIFAR-10, with either kind of shortcut, and wide ones. */
export const cifarResNet = defineVisionFamily<CifarResNetConfig>({
  name: "cifar-resnet",
  schema,
  presets,
  presetFields: ["depth", "widths", "stem"],
  piecewiseLinear: true,
  recognize,
  canonicalName,
  forward,
});
