/** @file A data set of labelled texts. */
import { createHash } from "node:crypto";
import type { Measure, Preprocessing } from "@espalier/core";
import { type Dataset, expectKind } from "./dataset.ts";
import { type TextSplit, textSamples } from "./text-samples.ts";

export interface TextDataset {
  readonly name: string;
  /** In the order of their numbers; one name for a number that is to be predicted. */
  readonly classes: readonly string[];
  readonly measures: readonly Measure[];
  /** What samples are cut to where the model takes more. */
  readonly mostTokens: number;
  readonly train: TextSplit;
  readonly test: TextSplit;
}

/** A data set of texts among others. */
export function textDataset({ mostTokens, train, test, ...rest }: TextDataset): Dataset {
  const { name, classes } = rest;
  const samples = (half: string, split: TextSplit, preprocessing: Preprocessing) => {
    const input = expectKind("text", name, preprocessing);
    return textSamples(split, input, mostTokens, `${name}: ${half}`);
  };
  return {
    ...rest,
    objective: classes.length === 1 ? "regression" : "classification",
    verified: false,
    counts: { train: train.labels.length, test: test.labels.length },
    digest: async () => {
      const hash = createHash("sha256");
      for (const { sentences, labels } of [train, test]) {
        hash.update(`${labels.length}\n`);
        for (const [i, label] of labels.entries()) {
          hash.update(`${JSON.stringify([sentences[i], label])}\n`);
        }
      }
      return hash.digest("hex");
    },
    train: (preprocessing) => samples("train", train, preprocessing),
    test: (preprocessing) => samples("test", test, preprocessing),
  };
}
