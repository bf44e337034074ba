/**
 * @file PreResNets for CIFAR (He et al. 2016, arXiv 1603.05027) as HAP prunes them: 9n + 2 layers in
 * three stages of n blocks, each of a 1×1, a 3×3 and a 1×1 convolution after their normalisations.
 */
import type { CheckpointSource } from "@espalier/core";
import type { Value } from "@espalier/graph";
import * as z from "zod";
import { cifarImage, cifarLabels } from "./cifar.ts";
import { defineVisionFamily, layerCount, size, type VisionConfig, visionConfig } from "./family.ts";
import type { Feature, Network } from "./network.ts";

export interface PreResNetConfig extends VisionConfig {
  readonly model_type: "preresnet";
  /** Convolutions, without those of the shortcuts, and the linear layer. */
  readonly depth: number;
  /** Channels of the first convolution and of the three stages. */
  readonly widths: readonly [number, number, number];
}

const schema = visionConfig.extend({
  model_type: z.literal("preresnet"),
  depth: layerCount.refine((depth) => depth > 2 && depth % 9 === 2, { error: "expected 9n + 2" }),
  widths: z.tuple([size, size, size]),
});

/** The configuration of a PreResNet for CIFAR-10. */
export function preResNetConfig(
  depth: number,
  widths: PreResNetConfig["widths"] = [64, 128, 256],
): PreResNetConfig {
  return { model_type: "preresnet", depth, widths, ...cifarLabels(), image: cifarImage };
}

function forward(
  network: Network,
  image: Feature,
  { depth, widths, num_labels }: PreResNetConfig,
): Value {
  const conv = (name: string, x: Feature, outputs: number, kernel: number, stride = 1) =>
    network.conv(name, x, {
      outputs,
      kernel,
      stride,
      padding: (kernel - 1) / 2,
      initialization: "normal-fan-out",
    });
  const activate = (name: string, x: Feature) => network.relu(network.batchNorm(name, x, 0.5));

  let width = widths[0];
  let x = conv("conv1", image, width, 3);
  widths.forEach((outputs, stage) => {
    for (let block = 0; block < (depth - 2) / 9; block++) {
      const name = `layer${stage + 1}.${block}`;
      const stride = stage > 0 && block === 0 ? 2 : 1;
      // Inside, a block is as wide as its input.
      const normalized = activate(`${name}.bn1`, x);
      let branch = conv(`${name}.conv1`, normalized, width, 1);
      branch = conv(`${name}.conv2`, activate(`${name}.bn2`, branch), width, 3, stride);
      branch = conv(`${name}.conv3`, activate(`${name}.bn3`, branch), outputs, 1);
      const projects = stride > 1 || width !== outputs;
      const shortcut = projects ? conv(`${name}.downsample.0`, x, outputs, 1, stride) : x;
      x = network.join([branch, shortcut]);
      width = outputs;
    }
  });
  return network.linear("fc", network.globalAverage(activate("bn", x)), num_labels).value;
}

function canonicalName(name: string): string | undefined {
  // The masks of network slimming, from whose code these networks come; they are not used.
  if (/(^|\.)select\.indexes$/.test(name)) return undefined;
  return name.endsWith(".num_batches_tracked") ? undefined : name;
}

function recognize({ tensors }: CheckpointSource): PreResNetConfig | undefined {
  const shapeOf = (name: string) => tensors.get(name)?.shape;
  // Only here a normalisation comes before the first convolution of a block, and one at the end.
  const scale = shapeOf("layer1.0.bn1.weight");
  const stages = [1, 2, 3].map((stage) => shapeOf(`layer${stage}.0.conv3.weight`)?.[0]);
  const inner = shapeOf("layer1.0.conv1.weight");
  if (scale === undefined || inner?.[1] !== scale[0] || !tensors.has("bn.weight")) return undefined;
  if (stages.includes(undefined) || tensors.has("layer4.0.conv1.weight")) return undefined;
  let blocks = 1;
  while (tensors.has(`layer1.${blocks}.conv1.weight`)) blocks++;
  const config = preResNetConfig(9 * blocks + 2, stages as [number, number, number]);
  return { ...config, ...cifarLabels(shapeOf("fc.weight")?.[0]) };
}

const presets = Object.fromEntries(
  [29, 56, 110].map((depth) => [`preresnet${depth}-cifar10`, preResNetConfig(depth)]),
);

/** PreResNet-29, 56 and 110 for CIFAR-10. */
export const preResNet = defineVisionFamily<PreResNetConfig>({
  name: "preresnet",
  schema,
  presets,
  presetFields: ["depth", "widths"],
  piecewiseLinear: true,
  recognize,
  canonicalName,
  forward,
});
