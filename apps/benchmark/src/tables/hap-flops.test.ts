import type { ModelFamily } from "@espalier/core";
import { Random } from "@espalier/core";
import { cifarResNet, preResNet, resNet, vgg, vggConfig } from "@espalier/vision";
import { expect, test } from "vitest";
import { type CountedOperation, hapFlops } from "./hap-flops.ts";

// As its code prints for its own networks.
test.each<[string, ModelFamily, object, readonly CountedOperation[], number]>([
  ["ResNet-56", cifarResNet, cifarResNet.presets["resnet56-cifar10"], [], 252_585_226],
  ["WideResNet-32", cifarResNet, cifarResNet.presets["wideresnet32-cifar10"], [], 2_203_882_506],
  [
    "PreResNet-29",
    preResNet,
    preResNet.presets["preresnet29-cifar10"],
    ["relu", "mean"],
    724_153_354,
  ],
  ["VGG16-BN", vgg, vgg.presets["vgg16-bn-cifar10"], ["relu", "maxPool"], 627_355_658],
  [
    "VGG16-BN with biases",
    vgg,
    vggConfig(16, { conv_bias: true }),
    ["relu", "maxPool"],
    627_632_138,
  ],
  ["ResNet-50", resNet, resNet.presets["resnet50-imagenet"], ["relu", "maxPool"], 8_212_012_520],
])("%s", (_, family, config, also, expected) => {
  const model = family.initialize(config as never, new Random(0));
  expect(hapFlops(model, also)).toBe(expected);
});
