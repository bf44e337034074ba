export {
  type CifarResNetConfig,
  cifarResNet,
  cifarResNetConfig,
  type Shortcut,
} from "./cifar-resnet.ts";
export { type Architecture, defineVisionFamily, type VisionConfig } from "./family.ts";
export {
  type ConvLayer,
  type Declaration,
  type Feature,
  type Initialization,
  Network,
  type Pruning,
} from "./network.ts";
