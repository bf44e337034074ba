/** @file What the networks for ImageNet have in common. */
import type { ImagePreprocessing } from "@espalier/core";

/** The statistics that most projects give, and that torchvision's networks were trained with. */
export const imagenetImage: ImagePreprocessing = {
  shape: [3, 224, 224],
  mean: [0.485, 0.456, 0.406],
  std: [0.229, 0.224, 0.225],
  // 224 pixels from the middle of 256.
  crop: 0.875,
};

/** Labels of `count` classes whose names are not known. */
export function imagenetLabels(count: number) {
  return {
    num_labels: count,
    id2label: Object.fromEntries(
      Array.from({ length: count }, (_, i) => [String(i), `class ${i}`]),
    ),
  };
}
