/**
 * @file The ResNets for CIFAR (He et al. 2016, arXiv 1512.03385, section 4.2): 6n + 2 layers in
 * three stages of n blocks, and their wider relatives.
 */
import type { CheckpointSource, ImagePreprocessing } from "@espalier/core";
import type { Value } from "@espalier/graph";
import { defineVisionFamily, type VisionConfig } from "./family.ts";
import type { Feature, Network } from "./network.ts";

/**
 * How a block's input reaches its output where the number of channels changes: by a 1×1 convolution
 * ("projection", option B of the paper) or by zeros around the channels ("padding", option A).
 */
export type Shortcut = "projection" | "padding";

export interface CifarResNetConfig extends VisionConfig {
  readonly model_type: "cifar-resnet";
  readonly depth: number;
  readonly shortcut: Shortcut;
  /** Channels of the three stages. */
  readonly widths: readonly [number, number, number];
}

const classes = [
  ...["airplane", "automobile", "bird", "cat", "deer"],
  ...["dog", "frog", "horse", "ship", "truck"],
];

// CIFAR-10's own statistics, as most projects give them.
const cifarImage: ImagePreprocessing = {
  shape: [3, 32, 32],
  mean: [0.4914, 0.4822, 0.4465],
  std: [0.2023, 0.1994, 0.201],
};

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
): CifarResNetConfig {
  return {
    model_type: "cifar-resnet",
    depth,
    shortcut,
    widths,
    num_labels: classes.length,
    id2label: Object.fromEntries(classes.map((name, i) => [String(i), name])),
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

  let x = network.relu(layer("conv1", image, widths[0], 1));
  widths.forEach((width, stage) => {
    for (let block = 0; block < blocks; block++) {
      const name = `layer${stage + 1}.${block}`;
      const narrows = stage > 0 && block === 0;
      const stride = narrows ? 2 : 1;
      const inner = network.relu(layer(`${name}.conv1`, x, width, stride));
      const branch = layer(`${name}.conv2`, inner, width, 1);
      let shortcut = x;
      if (narrows && config.shortcut === "projection") {
        const projected = network.conv(`${name}.downsample.0`, x, {
          outputs: width,
          kernel: 1,
          stride,
        });
        shortcut = network.batchNorm(`${name}.downsample.1`, projected);
      } else if (narrows) {
        shortcut = network.subsample(x, stride, (width - widths[stage - 1]) / 2);
      }
      x = network.relu(network.join([branch, shortcut]));
    }
  });
  return network.linear("fc", network.globalAverage(x), config.num_labels);
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
  const labels = shapes.get("fc.weight")?.[0] ?? classes.length;
  const config = cifarResNetConfig(6 * blocks + 2, shortcut, widths);
  if (labels === classes.length) return config;
  const names = Array.from({ length: labels }, (_, i) => [String(i), `class ${i}`]);
  return { ...config, num_labels: labels, id2label: Object.fromEntries(names) };
}

const depths = [20, 32, 44, 56, 110];

/** ResNet-20, 32, 44, 56 and 110 for CIFAR-10, with either kind of shortcut. */
export const cifarResNet = defineVisionFamily<CifarResNetConfig>({
  name: "cifar-resnet",
  presets: Object.fromEntries(
    depths.map((depth) => [`resnet${depth}-cifar10`, cifarResNetConfig(depth)]),
  ),
  presetOf: ({ depth, widths }) =>
    depths.includes(depth) && widths.join() === "16,32,64" ? `resnet${depth}-cifar10` : undefined,
  piecewiseLinear: true,
  recognize,
  canonicalName,
  forward,
});
