/**
 * @file MobileNetV2 (Sandler et al. 2018, arXiv 1801.04381) for Espalier, with the names of tensors
 * that torchvision uses.
 */
import type { CheckpointSource, ModelFamily } from "@espalier/core";
import type { Value } from "@espalier/graph";
import {
  cifarImage,
  cifarLabels,
  defineVisionFamily,
  type Feature,
  imagenetImage,
  imagenetLabels,
  type Network,
  size,
  type VisionConfig,
  visionConfig,
} from "@espalier/vision";
import * as z from "zod";

export interface MobileNetConfig extends VisionConfig {
  readonly model_type: "mobilenet-v2";
  /** Channels and stride of the first convolution. */
  readonly stem: { readonly width: number; readonly stride: number };
  /** Rows of the paper's table 2: blocks that differ in the stride of the first alone. */
  readonly stages: readonly {
    /** How many times as wide a block is inside. */
    readonly expansion: number;
    readonly width: number;
    readonly blocks: number;
    readonly stride: number;
  }[];
  /** Channels of the last convolution. */
  readonly head: number;
}

const stride = z.int().min(1).max(2);
const schema = visionConfig.extend({
  model_type: z.literal("mobilenet-v2"),
  stem: z.object({ width: size, stride }),
  stages: z
    .array(
      z.object({
        expansion: z.int().min(1).max(16),
        width: size,
        blocks: z.int().min(1).max(100),
        stride,
      }),
    )
    .min(1)
    .max(20),
  head: size,
});

/** Stages from rows [expansion, width, blocks, stride]. */
const stagesOf = (rows: readonly (readonly [number, number, number, number])[]) =>
  rows.map(([expansion, width, blocks, stride]) => ({ expansion, width, blocks, stride }));

const presets: Readonly<Record<string, MobileNetConfig>> = {
  "mobilenetv2-imagenet": {
    model_type: "mobilenet-v2",
    stem: { width: 32, stride: 2 },
    stages: stagesOf([
      [1, 16, 1, 1],
      [6, 24, 2, 2],
      [6, 32, 3, 2],
      [6, 64, 4, 2],
      [6, 96, 3, 1],
      [6, 160, 3, 2],
      [6, 320, 1, 1],
    ]),
    head: 1280,
    ...imagenetLabels(1000),
    image: imagenetImage,
  },
  "mobilenetv2-tiny-cifar10": {
    model_type: "mobilenet-v2",
    stem: { width: 16, stride: 1 },
    stages: stagesOf([
      [1, 8, 1, 1],
      [4, 16, 2, 2],
      [4, 24, 2, 2],
      [4, 32, 2, 2],
    ]),
    head: 128,
    ...cifarLabels(),
    image: cifarImage,
  },
};

function forward(network: Network, image: Feature, config: MobileNetConfig): Value {
  /** A convolution `NAME.0` and its normalisation `NAME.1`. */
  const layer = (name: string, x: Feature, outputs: number, kernel: number, stride = 1) => {
    const padding = (kernel - 1) / 2;
    const y = network.conv(`${name}.0`, x, { outputs, kernel, stride, padding });
    return network.relu6(network.batchNorm(`${name}.1`, y));
  };

  let width = config.stem.width;
  let x = layer("features.0", image, width, 3, config.stem.stride);
  let place = 1;
  for (const { expansion, width: outputs, blocks, stride } of config.stages) {
    for (let block = 0; block < blocks; block++) {
      const name = `features.${place++}.conv`;
      let part = 0;
      let y = x;
      if (expansion > 1) y = layer(`${name}.${part++}`, y, width * expansion, 1);
      const step = block === 0 ? stride : 1;
      y = network.depthwiseConv(`${name}.${part}.0`, y, { kernel: 3, stride: step, padding: 1 });
      y = network.relu6(network.batchNorm(`${name}.${part++}.1`, y));
      y = network.conv(`${name}.${part++}`, y, { outputs, kernel: 1 });
      y = network.batchNorm(`${name}.${part}`, y);
      x = step === 1 && width === outputs ? network.join([x, y]) : y;
      width = outputs;
    }
  }
  x = layer(`features.${place}`, x, config.head, 1);
  return network.linear("classifier.1", network.globalAverage(x), config.num_labels).value;
}

function canonicalName(name: string): string | undefined {
  return name.endsWith(".num_batches_tracked") ? undefined : name;
}

/** The outputs of all convolutions from one block to the next, and of the last. */
function widthsOf(config: MobileNetConfig): number[] {
  const inner = config.stages.flatMap(({ width, blocks }) => Array<number>(blocks).fill(width));
  return [config.stem.width, ...inner, config.head];
}

function recognize({ tensors }: CheckpointSource): MobileNetConfig | undefined {
  const labels = tensors.get("classifier.1.weight")?.shape[0];
  if (labels === undefined || !tensors.has("features.1.conv.0.0.weight")) return undefined;
  const found: number[] = [];
  for (let place = 0; ; place++) {
    // The last convolution of a block, of three or of two, or the only one of the first and last.
    const names = ["conv.2.weight", "conv.1.weight", "0.weight"].map(
      (n) => `features.${place}.${n}`,
    );
    const shapes = names.map((name) => tensors.get(name)?.shape);
    const shape = shapes.find((each) => each?.length === 4);
    if (shape === undefined) break;
    found.push(shape[0]);
  }
  const config = Object.values(presets).find((each) => widthsOf(each).join() === found.join());
  if (config === undefined || config.num_labels === labels) return config;
  return { ...config, ...imagenetLabels(labels) };
}

/** MobileNetV2 for ImageNet, and a small one for CIFAR-10. */
export const mobileNet = defineVisionFamily<MobileNetConfig>({
  name: "mobilenet-v2",
  schema,
  presets,
  presetFields: ["stem", "stages", "head"],
  piecewiseLinear: true,
  recognize,
  canonicalName,
  forward,
});

/** What `espalier --plugin` looks for. */
export const families: readonly ModelFamily[] = [mobileNet];
