import { expect, test } from "vitest";
import { conformanceCases, conformanceProblem, interpret } from "../testing/index.ts";
import { encodeOnnx } from "./encode.ts";
import { lowerToOnnx } from "./lower.ts";
import { readOnnx } from "./read.ts";

// Largest error relative to the largest element: attributes and constants are rounded to float32.
const TOLERANCE = 1e-6;

test.each(conformanceCases.map((entry) => [entry.name, entry] as const))(
  "%s is read back, derivatives included",
  (_name, entry) => {
    const { inputs, feeds, outputs } = conformanceProblem(entry);
    const read = readOnnx(encodeOnnx(lowerToOnnx(outputs)), "model.onnx");
    const names = Object.keys(outputs);
    expect(Object.keys(read.outputs)).toEqual(names);
    const expected = interpret(
      Object.values(outputs),
      new Map(inputs.map((value, i) => [value, feeds[i]])),
    );
    const actual = interpret(
      Object.values(read.outputs),
      // Inputs that no output uses are not in the model.
      new Map(
        feeds.flatMap((data, i) => (read.inputs[`x${i}`] ? [[read.inputs[`x${i}`], data]] : [])),
      ),
    );
    names.forEach((name, i) => {
      expect(actual[i].shape, name).toEqual(expected[i].shape);
      const scale = expected[i].data.reduce((a, b) => Math.max(a, Math.abs(b)), 1e-3);
      const error = expected[i].data.reduce(
        (a, b, k) => Math.max(a, Math.abs(b - actual[i].data[k])),
        0,
      );
      expect(error / scale, name).toBeLessThan(TOLERANCE);
    });
  },
);
