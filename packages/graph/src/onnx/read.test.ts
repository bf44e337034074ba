import { expect, test } from "vitest";
import { cast, where } from "../ops/elementwise.ts";
import { input, isInput } from "../ops/leaf.ts";
import { positions } from "../ops/shape.ts";
import {
  conformanceCases,
  conformanceProblem,
  discreteCases,
  interpret,
} from "../testing/index.ts";
import { topologicalOrder, type Value } from "../value.ts";
import { encodeOnnx } from "./encode.ts";
import { inferenceOnnx } from "./export.ts";
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

test.each(discreteCases.map((entry) => [entry.name, entry] as const))(
  "%s are read back",
  (_name, { feeds, outputs }) => {
    const read = readOnnx(encodeOnnx(lowerToOnnx(outputs)), "model.onnx");
    const evaluate = (values: Value[]) =>
      interpret(
        values,
        new Map(
          topologicalOrder(values)
            .filter(isInput)
            .map((value) => [value, Array.from(feeds[value.attributes.name], Number)]),
        ),
      );
    expect(evaluate(Object.values(read.outputs))).toEqual(evaluate(Object.values(outputs)));
  },
);

test("a choice between booleans is refused under the name of its node", () => {
  const [a, b] = [input("a", [2]), input("b", [2])];
  const graph = lowerToOnnx({ y: cast(where(cast(a, "bool"), a, b), "bool") });
  const booleans = {
    ...graph,
    inputs: graph.inputs.map((port) => ({ ...port, dtype: "bool" as const })),
  };
  expect(() => readOnnx(encodeOnnx(booleans), "model.onnx")).toThrow(
    /node ".*" \("Where"\): where: expected a bool and two values of its shape, both float32 or both int64, got bool\[2\], bool\[2\], bool\[2\]/,
  );
});

test("the length of sequences stays open and is given a size by the reader", () => {
  const graph = inferenceOnnx((batch, length) => {
    const counted = positions(input("ids", [batch, length], "int64"));
    return { outputs: { y: cast(counted, "float32") }, constants: new Map() };
  });
  const read = (length?: number, changed = graph) =>
    readOnnx(encodeOnnx(changed), "model.onnx", {
      batch: 2,
      ...(length === undefined ? {} : { length }),
    });
  expect(read(5).outputs.y.shape).toEqual([2, 5]);
  for (const length of [undefined, 0, 1.5]) {
    expect(() => read(length)).toThrow(
      /input "ids" leaves the length dimension open: expected the option length/,
    );
  }
  const inclusive = graph.nodes.map((node) =>
    node.type === "CumSum" ? { ...node, attributes: { exclusive: 0 } } : node,
  );
  expect(() => read(5, { ...graph, nodes: inclusive })).toThrow(
    /\("CumSum"\): inclusive sums are not supported/,
  );
});
