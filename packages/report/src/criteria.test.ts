import { expect, test } from "vitest";
import { criteriaOf } from "./criteria.ts";

const model = (classes: readonly string[], problem?: string) => ({
  classes,
  details: problem === undefined ? [] : [["problem_type", problem] as const],
});

test("a model of classes is judged by the share that it gets right", () => {
  for (const of of [model(["no", "yes"], "single_label_classification"), undefined]) {
    const { accuracy, loss } = criteriaOf({ model: of });
    expect([accuracy.name, accuracy.type]).toEqual(["Accuracy", "accuracy"]);
    expect(accuracy.format(0.926)).toBe("92.60 %");
    expect(accuracy.describeChange(0.926, 0.92)).toBe("−0.60 points");
    expect(accuracy.standardError(0.9, 100)).toBeCloseTo(0.03, 12);
    expect([loss.name, loss.unit]).toEqual(["Cross-entropy", "nats"]);
    expect(accuracy.describe(0.926, 10_000)).toBe("92.60 % of 10,000 test samples");
  }
});

test("a model that predicts a number is judged by its correlation, which is no share", () => {
  for (const of of [model(["similarity"]), model(["LABEL_0", "LABEL_1"], "regression")]) {
    const { accuracy, loss } = criteriaOf({ model: of });
    expect([accuracy.name, accuracy.type]).toEqual(["Pearson's correlation", "pearsonr"]);
    expect(accuracy.format(0.8642)).toBe("0.8642");
    expect(accuracy.format(-0.1)).toBe("−0.1000");
    expect(accuracy.describe(0.8642, 1500)).toBe("a correlation of 0.8642 on 1,500 test samples");
    expect(accuracy.describeChange(0.8642, 0.8601)).toBe("−0.0041");
    expect(accuracy.describeError(0.01)).toBe("± 0.0100");
    expect(accuracy.standardError(0.8, 101)).toBeCloseTo(0.036, 12);
    expect(loss.unit).toBeUndefined();
  }
});
