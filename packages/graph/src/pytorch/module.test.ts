import { spawnSync } from "node:child_process";
import { fileURLToPath } from "node:url";
import { describe, expect, test } from "vitest";
import { interpret } from "../interpret.ts";
import { linear } from "../ops/contract.ts";
import { conv, convInputGradient } from "../ops/convolution.ts";
import { add, multiply, relu } from "../ops/elementwise.ts";
import { operations } from "../ops/index.ts";
import { input, scalar } from "../ops/leaf.ts";
import { batchNorm, mean } from "../ops/normalize.ts";
import { reshape } from "../ops/shape.ts";
import {
  conformanceCases,
  conformanceProblem,
  discreteCases,
  randomArray,
} from "../testing/index.ts";
import { type Shape, sizeOf, type TensorData, topologicalOrder, type Value } from "../value.ts";
import { type PyTorchGraph, pytorchModule } from "./module.ts";

const noParameters = { parameters: new Map<string, Value>(), statistics: new Set<string>() };

/** Of a value of fixed shape. */
const sourceOf = (output: Value) =>
  pytorchModule(() => ({ output, ...noParameters }), "w.safetensors");

/** A convolution, normalised, and a shortcut around it. */
function residualNetwork(batch: number): PyTorchGraph {
  const parameters = new Map<string, Value>();
  const parameter = (name: string, ...shape: number[]) => {
    const value = input(name, shape);
    parameters.set(name, value);
    return value;
  };
  const x = input("pixel_values", [batch, 3, 8, 8]);
  const convolved = conv(x, parameter("block.0.weight", 3, 3, 3, 3), { padding: [1, 1, 1, 1] });
  const normalized = batchNorm(
    convolved,
    {
      scale: parameter("block.1.weight", 3),
      bias: parameter("block.1.bias", 3),
      mean: parameter("block.1.running_mean", 3),
      variance: parameter("block.1.running_var", 3),
    },
    1e-5,
  );
  const features = mean(relu(add(normalized, x)), [2, 3]);
  const output = add(linear(features, parameter("fc.weight", 4, 3)), parameter("fc.bias", 4));
  return {
    output,
    parameters,
    statistics: new Set(["block.1.running_mean", "block.1.running_var"]),
  };
}

test("a network is a module that reads like one written by hand", () => {
  const source = pytorchModule(residualNetwork, "model.safetensors");
  const forward = source.slice(source.indexOf("    def forward"), source.indexOf("\n\n\ndef load"));
  expect(forward).toBe(`    def forward(self, pixel_values):
        w = self.state_dict(keep_vars=True)
        x = F.conv2d(pixel_values, w["block.0.weight"], padding=1)
        x = F.batch_norm(x, w["block.1.running_mean"], w["block.1.running_var"], w["block.1.weight"], w["block.1.bias"], self.training, eps=0.00001)
        x = x + pixel_values
        x = F.relu(x)
        x = x.mean(dim=[2, 3])
        x = F.linear(x, w["fc.weight"])
        x = x + w["fc.bias"]
        return x`);
  expect(source).toContain('"""pixel_values: float32 [batch, 3, 8, 8] -> float32 [batch, 4]"""');
  expect(source).toContain(
    'STATISTICS = {\n    "block.1.running_mean",\n    "block.1.running_var",\n}',
  );
});

test("a batch size that is built in is refused with the line that has it", () => {
  const build = (batch: number) => ({
    output: multiply(input("features", [batch, 2]), scalar(1 / batch)),
    ...noParameters,
  });
  expect(() => pytorchModule(build, "model.safetensors")).toThrow(
    /model\.py: "x = features \* 0\.0009\d+" differs between batches of 1009 and 1013/,
  );
});

test("batch and length stay open where tensors change their shape", () => {
  const source = pytorchModule(
    (batch, length) => ({
      output: reshape(input("states", [batch, length, 6]), [batch * length, 2, 3]),
      ...noParameters,
    }),
    "model.safetensors",
  );
  expect(source).toContain("batch = states.shape[0]");
  expect(source).toContain("length = states.shape[1]");
  expect(source).toContain("x = states.reshape([batch * length, 2, 3])");
});

test("names from checkpoints are text in the source, whatever they contain", () => {
  const hostile = 'a"]); import os; os.abort() #\n\\\u2028.weight';
  const build = (batch: number) => {
    const weight = input(hostile, [2, 3]);
    return {
      output: linear(input("features", [batch, 3]), weight),
      parameters: new Map([[hostile, weight]]),
      statistics: new Set([hostile]),
    };
  };
  const source = pytorchModule(build, "model.safetensors");
  expect(source).toContain(`x = F.linear(features, w[${JSON.stringify(hostile)}])`);
  expect(source.split(JSON.stringify(hostile)).join("")).not.toContain("os.abort");
});

test.each(["batch", "2x", "a b", "self"])("an input called %s is refused", (name) => {
  expect(() => sourceOf(relu(input(name, [2])))).toThrow(
    `expected an input whose name is free for a variable, got "${name}"`,
  );
});

test("an operation of gradients is refused by its name", () => {
  const gradient = convInputGradient(input("y", [1, 2, 4, 4]), input("v", [2, 3, 3, 3]), {
    ...{ padding: [1, 1, 1, 1], strides: [1, 1], dilations: [1, 1], groups: 1 },
    inputSize: [4, 4],
  });
  expect(() => sourceOf(gradient)).toThrow("PyTorch has no expression for convInputGradient");
});

test("PyTorch has all operations but those of derivatives", () => {
  const without = [...operations.values()].filter((operation) => operation.pytorch === undefined);
  expect(without.map(({ name }) => name)).toEqual([
    // Leaves are written by the module itself.
    ...["input", "constant"],
    "scatterAdd",
    "reluGradient",
    "batchNormTraining",
    "channelVariance",
    "convInputGradient",
    "convWeightGradient",
    "maxPoolSelect",
    "maxPoolGradient",
  ]);
});

interface Module {
  readonly name: string;
  readonly output: Value;
  readonly feeds: ReadonlyMap<string, TensorData>;
}

const continuous: Module[] = conformanceCases.map((entry) => {
  const { inputs, feeds, outputs } = conformanceProblem(entry);
  return {
    name: entry.name,
    output: outputs.result,
    feeds: new Map(inputs.map((value, i) => [value.attributes.name, feeds[i]])),
  };
});
const discrete: Module[] = discreteCases.flatMap(({ name, feeds, outputs }) =>
  Object.entries(outputs).map(([key, output]) => ({
    name: `${name}: ${key}`,
    output,
    feeds: new Map(Object.entries(feeds)),
  })),
);

interface Result {
  readonly dtype: string;
  readonly shape: Shape;
  readonly data: readonly number[];
  readonly buffers: Readonly<Record<string, readonly number[]>>;
}

const python = process.env.ESPALIER_PYTHON ?? "python3";

function runModules(modules: readonly object[]): Result[] {
  const script = fileURLToPath(new URL("run-modules.py", import.meta.url));
  const { stdout, stderr, status } = spawnSync(python, [script], {
    input: JSON.stringify(modules),
    encoding: "utf8",
    maxBuffer: 1 << 28,
  });
  if (status !== 0) throw new Error(stderr);
  return JSON.parse(stdout);
}

const inputOf = (value: Value, data: TensorData) => ({
  dtype: value.dtype,
  shape: value.shape,
  data: Array.from(data, Number),
});

const hasPyTorch = spawnSync(python, ["-c", "import torch, safetensors"]).status === 0;

// Espalier does not need Python; where it is, with torch and safetensors, this is checked, too.
describe.skipIf(!hasPyTorch)("PyTorch", () => {
  const cases = [...continuous, ...discrete].flatMap((module) => {
    const { output, feeds } = module;
    let source: string;
    try {
      source = sourceOf(output);
    } catch {
      return [];
    }
    const leaves = topologicalOrder([output]).filter(({ operation }) => operation.name === "input");
    const inputs = leaves.map((leaf) => inputOf(leaf, feeds.get(leaf.attributes.name)!));
    return [{ ...module, leaves, run: { source, inputs, tensors: {}, training: false } }];
  });
  const results = hasPyTorch ? runModules(cases.map(({ run }) => run)) : [];

  test.each(cases.map((entry, i) => ({ ...entry, result: results[i] })))(
    "computes $name",
    ({ output, leaves, feeds, result }) => {
      const [expected] = interpret(
        [output],
        new Map(leaves.map((leaf) => [leaf, Array.from(feeds.get(leaf.attributes.name)!, Number)])),
      );
      expect(result.dtype).toBe(output.dtype);
      expect(result.shape).toEqual(output.shape);
      const scale = Math.max(1e-3, ...expected.data.map(Math.abs));
      expected.data.forEach((wanted, i) => {
        expect(Math.abs(result.data[i] - wanted) / scale).toBeLessThan(4e-6);
      });
    },
  );

  test("updates statistics while it trains, and only then", () => {
    const { parameters } = residualNetwork(2);
    const tensors = Object.fromEntries(
      [...parameters].map(([name, value], i) => [
        name,
        inputOf(value, randomArray(sizeOf(value.shape), i, 0.5, 1)),
      ]),
    );
    const source = pytorchModule(residualNetwork, "model.safetensors");
    const pixels = input("pixel_values", [2, 3, 8, 8]);
    const inputs = [inputOf(pixels, randomArray(sizeOf(pixels.shape), 9))];
    const [evaluated, trained] = runModules(
      [false, true].map((training) => ({ source, inputs, tensors, training })),
    );
    const before = tensors["block.1.running_mean"].data;
    expect(evaluated.buffers["block.1.running_mean"]).toEqual(before);
    expect(trained.buffers["block.1.running_mean"]).not.toEqual(before);
    expect(Object.keys(trained.buffers)).toHaveLength(2);
  });
});
