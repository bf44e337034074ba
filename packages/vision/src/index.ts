export { cifarImage, cifarLabels } from "./cifar.ts";
export {
  type CifarResNetConfig,
  cifarResNet,
  cifarResNetConfig,
  type Shortcut,
} from "./cifar-resnet.ts";
export {
  type Architecture,
  defineVisionFamily,
  layerCount,
  size,
  type VisionConfig,
  visionConfig,
} from "./family.ts";
export { imagenetImage, imagenetLabels } from "./imagenet.ts";
export {
  type ConvLayer,
  type Declaration,
  type DepthwiseConvLayer,
  type Feature,
  type Initialization,
  Network,
  type PoolLayer,
  type Pruning,
  type WeightInitialization,
} from "./network.ts";
export { type PreResNetConfig, preResNet, preResNetConfig } from "./pre-resnet.ts";
export { type ResNetConfig, resNet, resNetConfig } from "./resnet.ts";
export { type VggConfig, vgg, vggConfig } from "./vgg.ts";
