export { bert, distilbert, electra, encoders, roberta } from "./bert.ts";
export type {
  Activation,
  Dimensions,
  EncoderNames,
  LayerNames,
  Pruning,
} from "./encoder.ts";
export {
  type Architecture,
  activationName,
  defineTextFamily,
  type HeadParts,
  size,
  type TextConfig,
  textConfig,
} from "./family.ts";
