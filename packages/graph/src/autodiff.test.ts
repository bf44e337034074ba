import { describe, expect, test } from "vitest";
import {
  gradient,
  hessianQuadraticForms,
  jvp,
  sampleGradientNorms,
  sampleQuadraticForms,
  vjp,
} from "./autodiff.ts";
import { linear } from "./ops/contract.ts";
import { conv } from "./ops/convolution.ts";
import { relu, tanh } from "./ops/elementwise.ts";
import { operations } from "./ops/index.ts";
import { constant, input } from "./ops/leaf.ts";
import { addChannels, batchNorm, crossEntropy, mean } from "./ops/normalize.ts";
import { slice, sum } from "./ops/shape.ts";
import { simplify } from "./passes.ts";
import { conformanceCases, conformanceProblem, interpret, randomArray } from "./testing/index.ts";
import { sizeOf, type Value } from "./value.ts";

/** Σ a · b. */
function dot(a: ArrayLike<number>, b: ArrayLike<number>): number {
  return Array.from(a).reduce((total, element, i) => total + element * b[i], 0);
}

describe.each(conformanceCases.map((entry) => [entry.name, entry] as const))(
  "%s",
  (_name, entry) => {
    const { inputs, feeds, outputs } = conformanceProblem(entry);
    const directions = inputs.map((value, i) => randomArray(sizeOf(value.shape), 200 + i));
    const seed = randomArray(sizeOf(outputs.result.shape), 100);

    function evaluateAt(step: number, wanted: Value[]): Float64Array[] {
      const moved = new Map(
        inputs.map((value, i) => [
          value,
          Float64Array.from(feeds[i], (x, k) => x + step * directions[i][k]),
        ]),
      );
      return interpret(wanted, moved).map(({ data }) => data);
    }

    // Central differences: an error of step² times the third derivative, plus rounding / step.
    function differences(wanted: Value[]): Float64Array[] {
      const step = 1e-5;
      const [below, above] = [evaluateAt(-step, wanted), evaluateAt(step, wanted)];
      return above.map((after, i) => after.map((x, k) => (x - below[i][k]) / (2 * step)));
    }

    test("jvp agrees with finite differences", () => {
      const [expected] = differences([outputs.result]);
      const [actual] = evaluateAt(0, [outputs.tangent]);
      actual.forEach((x, k) => {
        expect(x).toBeCloseTo(expected[k], 6);
      });
    });

    test("vjp is the adjoint of jvp", () => {
      const tangent = evaluateAt(0, [outputs.tangent])[0];
      const cotangents = evaluateAt(
        0,
        inputs.map((_, i) => outputs[`cotangent${i}`]),
      );
      const forward = dot(tangent, seed);
      const reverse = cotangents.reduce((total, data, i) => total + dot(data, directions[i]), 0);
      // Constants in rules, such as 1 / n, are float32.
      expect(reverse).toBeCloseTo(forward, 6);
    });

    test("the derivative of vjp agrees with finite differences", () => {
      const first = inputs.map((_, i) => outputs[`cotangent${i}`]);
      const expected = differences(first);
      const actual = evaluateAt(
        0,
        inputs.map((_, i) => outputs[`second${i}`]),
      );
      actual.forEach((data, i) => {
        data.forEach((x, k) => {
          expect(x).toBeCloseTo(expected[i][k], 5);
        });
      });
    });
  },
);

test("sampleGradientNorms are the norms of the gradients of single samples", () => {
  const batch = 3;
  const x = input("x", [batch, 4, 6, 5]);
  const parameters = [
    input("w1", [6, 2, 3, 3]),
    input("b1", [6]),
    input("w2", [5, 6, 3, 3]),
    input("w3", [3, 5]),
  ];
  const [w1, b1, w2, w3] = parameters;
  const statistic = (low: number) => constant([6], randomArray(6, 9 + low, low, 2));
  const hidden = relu(
    batchNorm(
      addChannels(conv(x, w1, { padding: [1, 1, 1, 1], groups: 2 }), b1),
      { scale: statistic(1), bias: statistic(0), mean: statistic(-1), variance: statistic(0.5) },
      1e-5,
    ),
  );
  const logits = linear(mean(conv(hidden, w2, { strides: [2, 2] }), [2, 3]), w3);
  const seed = constant(logits.shape, randomArray(sizeOf(logits.shape), 77));
  const norms = sampleGradientNorms([logits], [seed], parameters);

  // The same from plain gradients, one sample's logits at a time.
  const feeds = new Map(
    [x, ...parameters].map((value, i) => [value, randomArray(sizeOf(value.shape), i)]),
  );
  const actual = interpret(norms, feeds);
  for (let n = 0; n < batch; n++) {
    const gradients = interpret(
      vjp([slice(logits, 0, n, n + 1)], [slice(seed, 0, n, n + 1)], parameters),
      feeds,
    );
    gradients.forEach(({ shape, data }, i) => {
      const rows = shape[0];
      const length = data.length / rows;
      for (let r = 0; r < rows; r++) {
        const row = data.subarray(r * length, (r + 1) * length);
        expect(actual[i].data[n * rows + r]).toBeCloseTo(dot(row, row), 9);
      }
    });
  }
});

test("sampleGradientNorms names a parameter that is used twice", () => {
  const x = input("x", [2, 3]);
  const w = input("w", [3, 3]);
  const logits = linear(relu(linear(x, w)), w);
  const seed = constant([2, 3], new Float32Array(6));
  expect(() => sampleGradientNorms([logits], [seed], [w])).toThrow(/used once/);
});

test("hessianQuadraticForms split v · H v by rows", () => {
  const x = input("x", [3, 4, 6, 5]);
  const parameters = [input("w1", [6, 4, 3, 3]), input("b1", [6]), input("w2", [3, 6])];
  const [w1, b1, w2] = parameters;
  const hidden = mean(tanh(addChannels(conv(x, w1, { padding: [1, 1, 1, 1] }), b1)), [2, 3]);
  const targets = constant([3, 3], Float32Array.of(1, 0, 0, 0, 1, 0, 0.5, 0, 0.5));
  const loss = sum(crossEntropy(linear(hidden, w2), targets));
  const directions = parameters.map(({ shape }, i) =>
    constant(shape, randomArray(sizeOf(shape), 50 + i)),
  );
  const forms = hessianQuadraticForms(loss, parameters, directions);
  const products = jvp(
    gradient(loss, parameters),
    new Map(parameters.map((parameter, i) => [parameter, directions[i]])),
  );
  const feeds = new Map(
    [x, ...parameters].map((value, i) => [value, randomArray(sizeOf(value.shape), i)]),
  );
  const [actual, expected, along] = [forms, products, directions].map((values) =>
    interpret(values, feeds),
  );
  actual.forEach(({ data }, i) => {
    const rows = parameters[i].shape[0];
    const length = expected[i].data.length / rows;
    expect(data).toHaveLength(rows);
    data.forEach((form, r) => {
      const row = (array: Float64Array) => array.subarray(r * length, (r + 1) * length);
      expect(form).toBeCloseTo(dot(row(expected[i].data), row(along[i].data)), 9);
    });
  });
});

test("sampleQuadraticForms are those of every sample by itself, along directions of its own", () => {
  const [samples, rows] = [3, [6, 6, 3]];
  const x = input("x", [samples, 4, 6, 5]);
  const parameters = [input("w1", [6, 4, 3, 3]), input("b1", [6]), input("w2", [3, 6])];
  const targets = constant([3, 3], Float32Array.of(1, 0, 0, 0, 1, 0, 0.5, 0, 0.5));
  const lossOf = (images: Value, wanted: Value) => {
    const [w1, b1, w2] = parameters;
    const hidden = mean(tanh(addChannels(conv(images, w1, { padding: [1, 1, 1, 1] }), b1)), [2, 3]);
    return sum(crossEntropy(linear(hidden, w2), wanted));
  };
  const directions = parameters.map(({ shape }, i) => randomArray(sizeOf(shape), 50 + i));
  const signs = rows.map((n, i) => randomArray(samples * n, 70 + i).map(Math.sign));
  const constants = (arrays: ArrayLike<number>[], shapes: readonly (readonly number[])[]) =>
    arrays.map((array, i) => constant(shapes[i], Float32Array.from(array)));
  const shapes = parameters.map(({ shape }) => shape);
  const forms = sampleQuadraticForms(
    lossOf(x, targets),
    parameters,
    constants(directions, shapes),
    constants(
      signs,
      rows.map((n) => [samples, n]),
    ),
  );
  const feeds = new Map(
    [x, ...parameters].map((value, i) => [value, randomArray(sizeOf(value.shape), i)]),
  );
  const actual = interpret(simplify(forms), feeds);
  for (let n = 0; n < samples; n++) {
    const one = (value: Value) => slice(value, 0, n, n + 1);
    const own = directions.map((direction, i) =>
      direction.map(
        (v, k) => v * signs[i][n * rows[i] + Math.floor(k / (direction.length / rows[i]))],
      ),
    );
    const expected = interpret(
      hessianQuadraticForms(lossOf(one(x), one(targets)), parameters, constants(own, shapes)),
      feeds,
    );
    expected.forEach(({ data }, i) => {
      expect(actual[i].shape).toEqual([samples, rows[i]]);
      data.forEach((form, r) => {
        expect(actual[i].data[n * rows[i] + r]).toBeCloseTo(form, 6);
      });
    });
  }
});

describe("regressors", () => {
  const linearCases = conformanceCases.filter(({ name }) => /^(conv|linear)\b/.test(name));

  test.each(linearCases.map((entry) => [entry.name, entry] as const))(
    "%s: rows of the weight times them are the result",
    (_name, entry) => {
      const { inputs, feeds, outputs } = conformanceProblem(entry);
      const { operation, shape } = outputs.result;
      const found = operation.regressors!(outputs.result, 1);
      const [samples, groups, unknowns, positions] = found.shape;
      const all = new Map(inputs.map((value, i) => [value, Float64Array.from(feeds[i])]));
      const [x, y] = interpret([found, outputs.result], all);
      const rowAxis = operation.rowAxis!(outputs.result, 1);
      const rows = shape[rowAxis];
      for (let n = 0; n < samples; n++) {
        for (let row = 0; row < rows; row++) {
          for (let l = 0; l < positions; l++) {
            let expected = 0;
            const group = n * groups + Math.floor((row * groups) / rows);
            for (let d = 0; d < unknowns; d++) {
              const seen = x.data[(group * unknowns + d) * positions + l];
              expected += feeds[1][row * unknowns + d] * seen;
            }
            const at =
              rowAxis === 1 ? (n * rows + row) * positions + l : (n * positions + l) * rows + row;
            expect(y.data[at]).toBeCloseTo(expected, 9);
          }
        }
      }
    },
  );
});

const affineInputs = conformanceCases.flatMap((entry) => {
  const { inputs, feeds, outputs } = conformanceProblem(entry);
  const { result } = outputs;
  return result.inputs.flatMap((operand, position) => {
    const index = inputs.indexOf(operand);
    if (result.inputs.filter((other) => other === operand).length > 1) return [];
    const { operation } = result;
    return index >= 0 && operation.affine?.(result, position)
      ? [{ name: `${entry.name}, input ${position}`, operation, inputs, feeds, index, result }]
      : [];
  });
});

test("every operation that says where it is affine is tested for it", () => {
  const tested = new Set(affineInputs.map(({ operation }) => operation));
  const said = [...operations.values()].filter(({ affine }) => affine !== undefined);
  expect(tested).toEqual(new Set(said));
});

test.each(affineInputs)(
  "$name: each element goes into one of the result at most, by an affine function",
  ({ inputs, feeds, index, result }) => {
    const resultAt = (element: number, step: number) => {
      const moved = inputs.map((value, i) => {
        const data = Float64Array.from(feeds[i]);
        if (i === index) data[element] += step;
        return [value, data] as const;
      });
      return interpret([result], new Map(moved))[0].data;
    };
    const start = resultAt(0, 0);
    for (let element = 0; element < feeds[index].length; element++) {
      const [once, twice] = [1, 2].map((step) => resultAt(element, step));
      const moved = [...start.keys()].filter((k) => Math.abs(once[k] - start[k]) > 1e-9);
      expect(moved.length).toBeLessThanOrEqual(1);
      start.forEach((x, k) => {
        expect(twice[k] - x).toBeCloseTo(2 * (once[k] - x), 9);
      });
    }
  },
);
