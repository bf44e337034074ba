import { objectives } from "@espalier/core";
import { describe, expect, test } from "vitest";
import { labelsOf } from "./task.ts";

const texts = { kind: "text", tokenizer: undefined, maxLength: 8, truncates: true } as const;
const rest = { vocabulary: 10, types: 2, padding: { token: 0, type: 0 } };
const images = { kind: "image", shape: [3, 4, 4], mean: [0, 0, 0], std: [1, 1, 1] } as const;

const task = (name: string, ...classes: string[]) => ({
  ...{ name, classes },
  objective: classes.length === 1 ? ("regression" as const) : ("classification" as const),
});
const mnli = task("glue/mnli", "entailment", "neutral", "contradiction");
const ofTexts = (...classes: string[]) => ({
  ...{ classes, preprocessing: { ...texts, ...rest } },
  objective: classes.length === 1 ? objectives.regression : undefined,
});
const ofImages = (...classes: string[]) => ({ classes, preprocessing: images });

describe("the classes of a task in a model", () => {
  test("have the same numbers where they have the same names", () => {
    expect(labelsOf(mnli, ofTexts("entailment", "neutral", "contradiction"))).toBeUndefined();
  });

  test("are found by name, however that is written", () => {
    expect(labelsOf(mnli, ofTexts("CONTRADICTION", "NEUTRAL", "ENTAILMENT"))).toEqual([2, 1, 0]);
    const rte = task("glue/rte", "entailment", "not_entailment");
    expect(labelsOf(rte, ofTexts("other", "not entailment", "Entailment"))).toEqual([2, 1]);
  });

  test("go by position where the model's names say nothing", () => {
    expect(labelsOf(mnli, ofTexts("LABEL_0", "LABEL_1", "LABEL_2"))).toBeUndefined();
    expect(labelsOf(mnli, ofTexts("0", "1", "2"))).toBeUndefined();
    const numbered = task("reviews", "0", "1");
    expect(labelsOf(numbered, ofTexts("NEGATIVE", "POSITIVE"))).toBeUndefined();
  });

  test("of texts are those of another task where names differ", () => {
    const mrpc = task("glue/mrpc", "not_equivalent", "equivalent");
    expect(() => labelsOf(mrpc, ofTexts("NEGATIVE", "POSITIVE"))).toThrow(
      "expected a model of the 2 classes of glue/mrpc (not_equivalent, equivalent), got one of 2 (NEGATIVE, POSITIVE)",
    );
    // A number that is to be predicted has no class.
    expect(labelsOf(task("glue/stsb", "similarity"), ofTexts("score"))).toBe(undefined);
  });

  test("of images may be called otherwise, but not in part", () => {
    const folder = task("imagefolder", "n01440764", "n02102040");
    expect(labelsOf(folder, ofImages("tench", "English springer"))).toBeUndefined();
    const pets = task("imagefolder", "cat", "hound");
    expect(() => labelsOf(pets, ofImages("dog", "cat"))).toThrow(
      "expected a model of the 2 classes of imagefolder (cat, hound), got one of 2 (dog, cat)",
    );
  });

  test("are told apart by what others leave out, where that is all there is", () => {
    const grades = ["A", "A-", "B"];
    expect(labelsOf(task("essays", ...grades), ofTexts(...grades))).toBeUndefined();
    expect(labelsOf(task("essays", "A-", "A"), ofTexts("A", "A-"))).toEqual([1, 0]);
    expect(() => labelsOf(task("essays", "A", "A-"), ofTexts("a", "b"))).toThrow("got one of 2");
  });

  test("that are numbered may be fewer than a model's", () => {
    expect(labelsOf(task("reviews", "0", "1"), ofTexts("no", "yes", "maybe"))).toBeUndefined();
    expect(() => labelsOf(task("reviews", "0", "1", "2"), ofTexts("no", "yes"))).toThrow();
  });

  test("need a head with as many", () => {
    expect(() => labelsOf(mnli, ofTexts())).toThrow("got one without a head for any task");
    expect(() => labelsOf(mnli, ofTexts("LABEL_0", "LABEL_1"))).toThrow(
      "expected a model of the 3 classes of glue/mnli",
    );
  });

  test("need one that predicts classes", () => {
    const scores = { ...ofTexts("LABEL_0", "LABEL_1"), objective: objectives.regression };
    expect(() => labelsOf(task("glue/sst2", "negative", "positive"), scores)).toThrow(
      "expected a model for the classification of glue/sst2, got one for regression",
    );
    expect(() => labelsOf(task("glue/stsb", "similarity"), ofTexts("no", "yes"))).toThrow(
      "expected a model for the regression of glue/stsb, got one for classification",
    );
  });
});
