/** @file What the networks for CIFAR-10 have in common. */
import type { ImagePreprocessing } from "@espalier/core";

const cifar10Classes = [
  ...["airplane", "automobile", "bird", "cat", "deer"],
  ...["dog", "frog", "horse", "ship", "truck"],
];

/** CIFAR-10's own statistics, as most projects give them. */
export const cifarImage: ImagePreprocessing = {
  shape: [3, 32, 32],
  mean: [0.4914, 0.4822, 0.4465],
  std: [0.2023, 0.1994, 0.201],
};

/** The labels of `count` classes: ten are CIFAR-10's, others are numbered. */
export function cifarLabels(count: number = cifar10Classes.length) {
  const names =
    count === cifar10Classes.length
      ? cifar10Classes
      : Array.from({ length: count }, (_, i) => `class ${i}`);
  return {
    num_labels: count,
    id2label: Object.fromEntries(names.map((name, i) => [String(i), name])),
  };
}
