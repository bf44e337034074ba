/**
 * @file The ResNets for ImageNet (He et al. 2016, arXiv 1512.03385, table 1), as torchvision and
 * Hugging Face have them. Configurations are those of Hugging Face's `ResNetForImageClassification`.
 */
import type { CheckpointSource } from "@espalier/core";
import type { Value } from "@espalier/graph";
import * as z from "zod";
import { defineVisionFamily, layerCount, size, type VisionConfig, visionConfig } from "./family.ts";
import { imagenetImage, imagenetLabels } from "./imagenet.ts";
import type { Feature, Network } from "./network.ts";

export interface ResNetConfig extends VisionConfig {
  readonly model_type: "resnet";
  /** Channels of the first convolution. */
  readonly embedding_size: number;
  /** Channels that leave each stage. */
  readonly hidden_sizes: readonly number[];
  /** Blocks of each stage. */
  readonly depths: readonly number[];
  /** "basic": two 3×3 convolutions; "bottleneck": a 3×3 between two 1×1, with a quarter of the channels. */
  readonly layer_type: "basic" | "bottleneck";
  readonly hidden_act: "relu";
  /** Whether the first stage halves the resolution as the others do. */
  readonly downsample_in_first_stage: boolean;
  /** Whether bottlenecks halve it in their first convolution; otherwise in the 3×3. */
  readonly downsample_in_bottleneck: boolean;
}

const fields = visionConfig
  .extend({
    model_type: z.literal("resnet"),
    embedding_size: size,
    hidden_sizes: z.array(size).min(1).max(10),
    depths: z.array(layerCount).min(1).max(10),
    layer_type: z.enum(["basic", "bottleneck"]),
    hidden_act: z.literal("relu"),
    downsample_in_first_stage: z.boolean().default(false),
    downsample_in_bottleneck: z.boolean().default(false),
  })
  .refine(({ hidden_sizes, depths }) => hidden_sizes.length === depths.length, {
    error: "expected as many numbers as hidden_sizes has",
    path: ["depths"],
  });

// Hugging Face's configurations name their labels without counting them, and leave the preparation
// of images to a file of its own.
const schema = z.preprocess((config) => {
  if (typeof config !== "object" || config === null) return config;
  const { id2label } = config as { id2label?: unknown };
  const labels = typeof id2label === "object" && id2label !== null ? Object.keys(id2label) : [];
  return { num_labels: labels.length, image: imagenetImage, ...config };
}, fields);

const networks: Readonly<Record<number, Pick<ResNetConfig, "layer_type" | "depths">>> = {
  18: { layer_type: "basic", depths: [2, 2, 2, 2] },
  34: { layer_type: "basic", depths: [3, 4, 6, 3] },
  50: { layer_type: "bottleneck", depths: [3, 4, 6, 3] },
  101: { layer_type: "bottleneck", depths: [3, 4, 23, 3] },
  152: { layer_type: "bottleneck", depths: [3, 8, 36, 3] },
};

/** The configuration of a ResNet for images like ImageNet's. */
export function resNetConfig(depth: 18 | 34 | 50 | 101 | 152, classes = 1000): ResNetConfig {
  const { layer_type, depths } = networks[depth];
  const expansion = layer_type === "basic" ? 1 : 4;
  return {
    model_type: "resnet",
    embedding_size: 64,
    hidden_sizes: [64, 128, 256, 512].map((width) => width * expansion),
    depths,
    layer_type,
    hidden_act: "relu",
    downsample_in_first_stage: false,
    downsample_in_bottleneck: false,
    ...imagenetLabels(classes),
    image: imagenetImage,
  };
}

function forward(network: Network, image: Feature, config: ResNetConfig): Value {
  const { hidden_sizes, depths, layer_type, downsample_in_bottleneck: early } = config;
  const layer = (name: string, x: Feature, outputs: number, kernel: number, stride = 1) => {
    const normalization = name
      .replace(/conv(\d)$/, "bn$1")
      .replace(/downsample\.0$/, "downsample.1");
    const padding = (kernel - 1) / 2;
    const initialization = "normal-fan-out";
    const result = network.conv(name, x, { outputs, kernel, stride, padding, initialization });
    return network.batchNorm(normalization, result);
  };

  let width = config.embedding_size;
  let x = network.relu(layer("conv1", image, width, 7, 2));
  x = network.maxPool(x, { kernel: 3, stride: 2, padding: 1 });
  hidden_sizes.forEach((outputs, stage) => {
    for (let block = 0; block < depths[stage]; block++) {
      const name = `layer${stage + 1}.${block}`;
      const narrows = block === 0 && (stage > 0 || config.downsample_in_first_stage);
      const stride = narrows ? 2 : 1;
      let branch = x;
      if (layer_type === "basic") {
        branch = network.relu(layer(`${name}.conv1`, branch, outputs, 3, stride));
        branch = layer(`${name}.conv2`, branch, outputs, 3);
      } else {
        const inner = Math.floor(outputs / 4);
        branch = network.relu(layer(`${name}.conv1`, branch, inner, 1, early ? stride : 1));
        branch = network.relu(layer(`${name}.conv2`, branch, inner, 3, early ? 1 : stride));
        branch = layer(`${name}.conv3`, branch, outputs, 1);
      }
      const projects = stride > 1 || width !== outputs;
      const shortcut = projects ? layer(`${name}.downsample.0`, x, outputs, 1, stride) : x;
      x = network.relu(network.join([branch, shortcut]));
      width = outputs;
    }
  });
  return network.linear("fc", network.globalAverage(x), config.num_labels).value;
}

/** Torchvision's names, for those and Hugging Face's. */
function canonicalName(name: string): string | undefined {
  if (name.endsWith(".num_batches_tracked")) return undefined;
  const part = (kind: string, number: number) =>
    kind === "convolution" ? `conv${number}` : `bn${number}`;
  return name
    .replace(/^resnet\.embedder\.embedder\.(\w+)\./, (_, kind) => `${part(kind, 1)}.`)
    .replace(/^resnet\.encoder\.stages\.(\d+)\.layers\.(\d+)\./, (_, stage, block) => {
      return `layer${Number(stage) + 1}.${block}.`;
    })
    .replace(/\.layer\.(\d+)\.(\w+)\./, (_, i, kind) => `.${part(kind, Number(i) + 1)}.`)
    .replace(/\.shortcut\.convolution\./, ".downsample.0.")
    .replace(/\.shortcut\.normalization\./, ".downsample.1.")
    .replace(/^classifier\.1\./, "fc.");
}

function recognize({ tensors }: CheckpointSource): ResNetConfig | undefined {
  const shapes = new Map(
    [...tensors].map(([name, { shape }]) => [canonicalName(name) ?? name, shape]),
  );
  const stem = shapes.get("conv1.weight");
  if (stem?.[3] !== 7 || !shapes.has("bn1.weight")) return undefined;
  const depths: number[] = [];
  const hidden_sizes: number[] = [];
  const layer_type = shapes.has("layer1.0.conv3.weight") ? "bottleneck" : "basic";
  const last = layer_type === "basic" ? "conv2" : "conv3";
  for (let stage = 1; shapes.has(`layer${stage}.0.${last}.weight`); stage++) {
    let blocks = 1;
    while (shapes.has(`layer${stage}.${blocks}.${last}.weight`)) blocks++;
    depths.push(blocks);
    hidden_sizes.push(shapes.get(`layer${stage}.0.${last}.weight`)![0]);
  }
  if (depths.length === 0) return undefined;
  const config = resNetConfig(50, shapes.get("fc.weight")?.[0]);
  return { ...config, embedding_size: stem[0], layer_type, depths, hidden_sizes };
}

const presets: Readonly<Record<string, ResNetConfig>> = Object.fromEntries(
  ([18, 34, 50, 101, 152] as const).map((depth) => [
    `resnet${depth}-imagenet`,
    resNetConfig(depth),
  ]),
);

/** ResNet-18, 34, 50, 101 and 152. */
export const resNet = defineVisionFamily<ResNetConfig>({
  name: "resnet",
  schema,
  presets,
  presetFields: ["depths", "hidden_sizes", "layer_type"],
  piecewiseLinear: true,
  recognize,
  canonicalName,
  forward,
});
