/**
 * Ways in which networks are put together. For each: what is coupled with what, and that a network
 * from which coupled slices are cut computes what it does when they are zero.
 */
import { describe, expect, test } from "vitest";
import { type CoupledParameter, type CoupledSlices, coupleSlices } from "./coupling.ts";
import { interpret } from "./interpret.ts";
import { linear, matmul } from "./ops/contract.ts";
import { conv } from "./ops/convolution.ts";
import { add, clip, gelu, maximum, multiply, relu, sigmoid, subtract } from "./ops/elementwise.ts";
import { input, scalar } from "./ops/leaf.ts";
import { batchNorm, layerNorm, mean, perChannel } from "./ops/normalize.ts";
import { averagePool, maxPool } from "./ops/pool.ts";
import { concat, gather, pad, reshape, slice, sum, transpose } from "./ops/shape.ts";
import { randomArray } from "./testing/random.ts";
import { type Shape, sizeOf, type Value } from "./value.ts";

/** Declares parameters by name, at the size that `cut` leaves them. */
class Net {
  readonly parameters = new Map<string, CoupledParameter>();
  readonly inputs = new Map<string, Value>();
  readonly #cut: CoupledSlices | undefined;

  constructor(cut?: CoupledSlices) {
    this.#cut = cut;
  }

  input(name: string, shape: Shape): Value {
    const value = input(name, shape);
    this.inputs.set(name, value);
    return value;
  }

  image(channels = 2): Value {
    return this.input("image", [2, channels, 4, 4]);
  }

  /** A parameter whose dense shape is `shape`. */
  parameter(name: string, shape: Shape, producesRows: boolean): Value {
    const gone = (axis: number) =>
      this.#cut?.slices.filter((slice) => slice.parameter === name && slice.axis === axis).length ??
      0;
    const value = input(
      name,
      shape.map((size, axis) => size - gone(axis)),
    );
    this.parameters.set(name, { value, producesRows });
    return value;
  }

  conv(name: string, x: Value, outputs: number, inputs: number, kernel = 3): Value {
    const weight = this.parameter(`${name}`, [outputs, inputs, kernel, kernel], true);
    const side = (kernel - 1) / 2;
    const groups = x.shape[1] / weight.shape[1];
    return conv(x, weight, { padding: [side, side, side, side], groups });
  }

  linear(name: string, x: Value, outputs: number, inputs: number): Value {
    return linear(x, this.parameter(name, [outputs, inputs], true));
  }

  bias(name: string, x: Value, size: number): Value {
    return add(x, perChannel(this.parameter(name, [size], false), x.shape.length));
  }

  norm(name: string, x: Value, size: number): Value {
    const vector = (field: string) => this.parameter(`${name}.${field}`, [size], false);
    const [scale, bias] = [vector("scale"), vector("bias")];
    return batchNorm(x, { scale, bias, mean: vector("mean"), variance: vector("variance") }, 1e-3);
  }
}

type Build = (net: Net) => Value | readonly Value[];

interface Case {
  readonly build: Build;
  /** All classes that can be removed: "parameter.axis[indices]", separated by spaces. */
  readonly coupled: readonly string[];
}

/** One class, such as "a.0[1] b.1[2,3]". */
function describeClass({ slices }: CoupledSlices): string {
  const axes = new Map<string, number[]>();
  for (const { parameter, axis, index } of slices) {
    const key = `${parameter}.${axis}`;
    axes.set(key, [...(axes.get(key) ?? []), index]);
  }
  return [...axes].map(([key, indices]) => `${key}[${indices}]`).join(" ");
}

function outputsOf(build: Build, net: Net): readonly Value[] {
  const outputs = build(net);
  return Array.isArray(outputs) ? outputs : [outputs as Value];
}

/** The classes that nothing forbids to remove and that some output depends on. */
function removable(build: Build): CoupledSlices[] {
  const net = new Net();
  return coupleSlices(outputsOf(build, net), net.parameters).filter(
    ({ fixed, slices }) =>
      !fixed &&
      slices.some(({ parameter, axis }) => {
        return axis === 0 && net.parameters.get(parameter)!.producesRows;
      }),
  );
}

/** Whether an element of a tensor lies in one of `slices` of it. */
function isCut(cut: CoupledSlices, parameter: string, shape: Shape) {
  const own = cut.slices.filter((slice) => slice.parameter === parameter);
  return (flat: number) =>
    own.some(({ axis, index }) => {
      return Math.floor(flat / sizeOf(shape.slice(axis + 1))) % shape[axis] === index;
    });
}

/** Whether nothing would be left of an axis: a network without it is built in another way. */
function emptiesAnAxis(build: Build, cut: CoupledSlices): boolean {
  const net = new Net();
  outputsOf(build, net);
  return cut.slices.some(({ parameter, axis }) => {
    const gone = cut.slices.filter((s) => s.parameter === parameter && s.axis === axis);
    return gone.length === net.parameters.get(parameter)!.value.shape[axis];
  });
}

/** What a network computes with random parameters, of which `cut` is zero or not there at all. */
function compute(build: Build, cut: CoupledSlices, how: "masked" | "sliced"): Float64Array[] {
  const dense = new Net();
  const whole = outputsOf(build, dense);
  const net = how === "masked" ? dense : new Net(cut);
  const outputs = how === "masked" ? whole : outputsOf(build, net);
  const feeds = new Map<Value, ArrayLike<number>>();
  for (const [i, [name, { value }]] of [...net.parameters].entries()) {
    const { shape } = dense.parameters.get(name)!.value;
    const isGone = isCut(cut, name, shape);
    // Variances are positive.
    const low = name.endsWith("variance") ? 0.5 : -1;
    const data = randomArray(sizeOf(shape), i + 1, low, 1.5);
    const held =
      how === "masked"
        ? data.map((element, flat) => (isGone(flat) ? 0 : element))
        : data.filter((_, flat) => !isGone(flat));
    feeds.set(value, held);
  }
  for (const [i, value] of [...net.inputs.values()].entries()) {
    feeds.set(value, randomArray(sizeOf(value.shape), 100 + i));
  }
  return interpret(outputs, feeds).map(({ data }) => data);
}

const pool = {
  kernel: [2, 2] as const,
  strides: [2, 2] as const,
  padding: [0, 0, 0, 0] as const,
};

const cases: Readonly<Record<string, Case>> = {
  "a convolution, its bias, its normalisation and the next convolution": {
    build: (net) => {
      const hidden = net.norm("n", net.bias("bias", net.conv("a", net.image(), 2, 2), 2), 2);
      return net.conv("b", gelu(hidden), 2, 2);
    },
    coupled: [0, 1].map(
      (i) =>
        `a.0[${i}] bias.0[${i}] n.scale.0[${i}] n.bias.0[${i}] n.mean.0[${i}] n.variance.0[${i}] b.1[${i}]`,
    ),
  },
  "a normalisation before the convolution": {
    build: (net) => {
      const first = net.conv("a", net.image(), 2, 2);
      return net.conv("b", relu(net.norm("n", first, 2)), 1, 2);
    },
    coupled: [0, 1].map(
      (i) => `a.0[${i}] n.scale.0[${i}] n.bias.0[${i}] n.mean.0[${i}] n.variance.0[${i}] b.1[${i}]`,
    ),
  },
  concatenation: {
    build: (net) => {
      const x = net.image();
      const joined = concat([net.conv("a", x, 2, 2), x, net.conv("b", x, 1, 2)], 1);
      return net.conv("c", relu(joined), 1, 5);
    },
    coupled: ["a.0[0] c.1[0]", "a.0[1] c.1[1]", "b.0[0] c.1[4]"],
  },
  "concatenation of concatenations, each used twice": {
    build: (net) => {
      const x = net.conv("a", net.image(), 2, 2);
      const first = concat([x, net.conv("b", x, 1, 2)], 1);
      const second = concat([first, net.conv("c", first, 1, 3)], 1);
      return net.conv("d", second, 1, 4);
    },
    coupled: [
      "a.0[0] b.1[0] c.1[0] d.1[0]",
      "a.0[1] b.1[1] c.1[1] d.1[1]",
      "b.0[0] c.1[2] d.1[2]",
      "c.0[0] d.1[3]",
    ],
  },
  "split in equal parts, added": {
    build: (net) => {
      const x = net.conv("a", net.image(), 4, 2);
      const half = x.shape[1] / 2;
      const parts = [slice(x, 1, 0, half), slice(x, 1, half, 2 * half)];
      return net.conv("b", add(relu(parts[0]), parts[1]), 1, 2);
    },
    coupled: ["a.0[0,2] b.1[0]", "a.0[1,3] b.1[1]"],
  },
  "split and shuffled, as ShuffleNet does": {
    build: (net) => {
      const x = net.conv("a", net.image(), 4, 2);
      const [n, c, h, w] = x.shape;
      const turned = transpose(reshape(x, [n, c / 2, 2, h, w]), [0, 2, 1, 3, 4]);
      const shuffled = reshape(turned, [n, c, h, w]);
      return net.conv("b", shuffled, 1, 4);
    },
    // Pairs go as a whole, so that the other axis of the split stays as it is.
    coupled: ["a.0[0,1] b.1[0,2]", "a.0[2,3] b.1[1,3]"],
  },
  "flattening before a linear layer": {
    build: (net) => {
      const x = maxPool(net.conv("a", net.image(), 2, 2), pool);
      return net.linear("fc", reshape(x, [x.shape[0], sizeOf(x.shape) / x.shape[0]]), 1, 8);
    },
    coupled: ["a.0[0] fc.1[0,1,2,3]", "a.0[1] fc.1[4,5,6,7]"],
  },
  "positions as a sequence": {
    build: (net) => {
      const x = net.conv("a", net.image(), 2, 2);
      const [n, c, h, w] = x.shape;
      return net.linear("fc", transpose(reshape(x, [n, c, h * w])), 1, 2);
    },
    coupled: ["a.0[0] fc.1[0]", "a.0[1] fc.1[1]"],
  },
  "several inputs": {
    build: (net) => {
      const x = net.conv("a", net.image(), 2, 2);
      const y = net.linear("b", net.input("vector", [2, 3]), 2, 3);
      return net.conv("c", add(x, reshape(y, [2, y.shape[1], 1, 1])), 1, 2);
    },
    coupled: ["a.0[0] b.0[0] c.1[0]", "a.0[1] b.0[1] c.1[1]"],
  },
  "several outputs, one of them inside": {
    build: (net) => {
      const x = net.conv("a", net.image(), 2, 2);
      const y = net.conv("b", relu(x), 2, 2);
      return [net.conv("c", y, 1, 2), net.linear("d", mean(y, [2, 3]), 1, 2), x];
    },
    coupled: ["b.0[0] c.1[0] d.1[0]", "b.0[1] c.1[1] d.1[1]"],
  },
  "single channels": {
    build: (net) => {
      const x = net.image();
      // Repeated over all channels, it is not a channel that others do without.
      const y = add(net.conv("b", x, 2, 2), net.conv("a", x, 1, 2));
      return net.conv("c", y, 1, 2);
    },
    coupled: ["b.0[0] c.1[0]", "b.0[1] c.1[1]"],
  },
  "an attention map of one channel": {
    build: (net) => {
      const x = net.conv("a", net.image(), 2, 2);
      const map = sigmoid(net.conv("map", x, 1, 2));
      return net.conv("b", multiply(x, map), 1, 2);
    },
    coupled: ["a.0[0] map.1[0] b.1[0]", "a.0[1] map.1[1] b.1[1]"],
  },
  "a depthwise convolution, clipped activations": {
    build: (net) => {
      const x = clip(net.norm("n", net.conv("a", net.image(), 2, 2, 1), 2), 0, 6);
      const y = clip(net.bias("bias", net.conv("depthwise", x, 2, 1), 2), 0, 6);
      return net.conv("b", y, 1, 2, 1);
    },
    coupled: [0, 1].map(
      (i) =>
        `a.0[${i}] n.scale.0[${i}] n.bias.0[${i}] n.mean.0[${i}] n.variance.0[${i}] depthwise.0[${i}] bias.0[${i}] b.1[${i}]`,
    ),
  },
  "a depthwise convolution with two outputs per channel": {
    build: (net) => {
      const x = net.conv("a", net.image(), 2, 2);
      const y = net.conv("depthwise", x, 4, 1);
      return net.conv("b", y, 1, 4);
    },
    coupled: ["a.0[0] depthwise.0[0,1] b.1[0,1]", "a.0[1] depthwise.0[2,3] b.1[2,3]"],
  },
  "a depthwise convolution of the inputs": {
    build: (net) =>
      net.conv("b", net.conv("a", net.conv("depthwise", net.image(), 2, 1), 2, 2), 1, 2),
    coupled: ["a.0[0] b.1[0]", "a.0[1] b.1[1]"],
  },
  "a convolution in two groups": {
    build: (net) => {
      const x = net.conv("a", net.image(), 4, 2);
      const weight = net.parameter("grouped", [4, 2, 3, 3], true);
      const y = conv(x, weight, { padding: [1, 1, 1, 1], groups: 2 });
      return net.conv("b", y, 1, 4);
    },
    coupled: [
      "a.0[0,2] grouped.1[0]",
      "a.0[1,3] grouped.1[1]",
      "grouped.0[0,2] b.1[0,2]",
      "grouped.0[1,3] b.1[1,3]",
    ],
  },
  "residual additions": {
    build: (net) => {
      const x = relu(net.conv("stem", net.image(), 2, 2));
      const y = relu(add(x, net.conv("b", relu(net.conv("a", x, 1, 2)), 2, 1)));
      return net.conv("head", y, 1, 2);
    },
    coupled: [
      "stem.0[0] a.1[0] b.0[0] head.1[0]",
      "stem.0[1] a.1[1] b.0[1] head.1[1]",
      "a.0[0] b.1[0]",
    ],
  },
  "additions that broadcast positions, numbers and samples": {
    build: (net) => {
      const x = net.conv("a", net.image(), 2, 2);
      const position = net.input("position", [1, 1, 4, 4]);
      return net.conv("b", add(multiply(add(x, position), scalar(0.5)), x), 1, 2);
    },
    coupled: ["a.0[0] b.1[0]", "a.0[1] b.1[1]"],
  },
  "differences and maxima": {
    build: (net) => {
      const x = net.image();
      const [a, b, c] = ["a", "b", "c"].map((name) => net.conv(name, x, 2, 2));
      return net.conv("d", maximum(subtract(a, b), c), 1, 2);
    },
    coupled: ["a.0[0] b.0[0] c.0[0] d.1[0]", "a.0[1] b.0[1] c.0[1] d.1[1]"],
  },
  "squeeze and excitation": {
    build: (net) => {
      const x = net.conv("a", net.image(), 2, 2);
      const squeezed = net.conv("squeeze", mean(x, [2, 3], true), 1, 2, 1);
      const gate = sigmoid(net.bias("bias", net.conv("excite", relu(squeezed), 2, 1, 1), 2));
      return net.conv("b", multiply(x, gate), 1, 2);
    },
    coupled: [
      "a.0[0] squeeze.1[0] excite.0[0] bias.0[0] b.1[0]",
      "a.0[1] squeeze.1[1] excite.0[1] bias.0[1] b.1[1]",
      "squeeze.0[0] excite.1[0]",
    ],
  },
  pooling: {
    build: (net) => {
      const x = maxPool(net.conv("a", net.image(), 2, 2), pool);
      return net.linear("fc", mean(averagePool(x, pool), [2, 3]), 1, 2);
    },
    coupled: ["a.0[0] fc.1[0]", "a.0[1] fc.1[1]"],
  },
  "fully connected layers": {
    build: (net) => {
      const x = net.linear("a", net.input("x", [2, 3]), 2, 3);
      const hidden = relu(add(x, net.parameter("bias", [2], false)));
      return net.linear("b", hidden, 1, 2);
    },
    coupled: ["a.0[0] bias.0[0] b.1[0]", "a.0[1] bias.0[1] b.1[1]"],
  },
  "products of activations and their transposes": {
    build: (net) => {
      const x = net.input("x", [2, 3, 2]);
      const [q, k, v] = ["q", "k", "v"].map((name) => net.linear(name, x, 2, 2));
      return net.linear("o", matmul(matmul(q, transpose(k)), v), 1, 2);
    },
    coupled: ["q.0[0] k.0[0]", "q.0[1] k.0[1]", "v.0[0] o.1[0]", "v.0[1] o.1[1]"],
  },
  "channels last": {
    build: (net) => {
      const x = transpose(net.conv("a", net.image(), 2, 2), [0, 2, 3, 1]);
      const hidden = net.linear("fc", relu(x), 2, 2);
      return net.conv("b", transpose(hidden, [0, 3, 1, 2]), 1, 2);
    },
    coupled: ["a.0[0] fc.1[0]", "a.0[1] fc.1[1]", "fc.0[0] b.1[0]", "fc.0[1] b.1[1]"],
  },
  "sums over positions, zeros around them": {
    build: (net) => {
      const x = net.conv("a", net.image(), 2, 2);
      const padded = pad(x, [0, 0, 1, 1], [0, 0, 1, 1]);
      return net.linear("fc", sum(padded, [2, 3]), 1, 2);
    },
    coupled: ["a.0[0] fc.1[0]", "a.0[1] fc.1[1]"],
  },
  "every second row and column": {
    build: (net) => {
      const x = net.conv("a", net.image(), 2, 2);
      return net.conv("b", slice(slice(x, 2, 0, 4, 2), 3, 1, 4, 2), 1, 2);
    },
    coupled: ["a.0[0] b.1[0]", "a.0[1] b.1[1]"],
  },
  "what averages over channels": {
    build: (net) => {
      const x = net.linear("a", net.input("x", [2, 3]), 3, 3);
      const vector = (name: string) => net.parameter(name, [3], false);
      const normal = layerNorm(x, vector("scale"), vector("bias"), 1e-3);
      const y = net.linear("b", normal, 2, 3);
      return [net.linear("c", relu(y), 1, 2), mean(net.linear("d", y, 2, 2), [1])];
    },
    coupled: ["b.0[0] c.1[0] d.1[0]", "b.0[1] c.1[1] d.1[1]"],
  },
};

describe.each(Object.entries(cases))("%s", (_name, { build, coupled }) => {
  test("couples what belongs together", () => {
    expect(removable(build).map(describeClass)).toEqual(coupled);
  });

  test("computes without any class what it does with zeros there", () => {
    const cuts = removable(build).filter((cut) => !emptiesAnAxis(build, cut));
    expect(cuts).not.toEqual([]);
    for (const cut of cuts) {
      const masked = compute(build, cut, "masked");
      const sliced = compute(build, cut, "sliced");
      sliced.forEach((data, i) => {
        expect(data.length).toBe(masked[i].length);
        data.forEach((element, k) => {
          expect(element).toBeCloseTo(masked[i][k], 9);
        });
      });
    }
  });
});

describe("sums whose summands lose channels apart", () => {
  const rowsOf = (build: Build, parameter: string) => {
    const net = new Net();
    return coupleSlices(outputsOf(build, net), net.parameters, "apart")
      .filter(({ slices }) => slices.some((s) => s.parameter === parameter && s.axis === 0))
      .map((coupled) => (coupled.fixed ? "fixed" : describeClass(coupled)));
  };
  const branches = (net: Net, outputs: number) => {
    const x = net.image();
    return add(net.conv("a", x, outputs, 2), net.conv("b", x, outputs, 2));
  };

  test("outputs of the network keep all their channels", () => {
    expect(rowsOf((net) => branches(net, 2), "a")).toEqual(["fixed", "fixed"]);
  });

  test("so do those of a sum of sums, and those that are averaged", () => {
    const nested: Build = (net) => {
      const x = branches(net, 2);
      return mean(relu(add(x, net.conv("c", net.image(), 2, 2))), [1]);
    };
    for (const name of ["a", "b", "c"]) expect(rowsOf(nested, name)).toEqual(["fixed", "fixed"]);
  });

  test("a convolution in groups makes both lose the same places of every group", () => {
    const grouped: Build = (net) => {
      const x = branches(net, 4);
      const weight = net.parameter("grouped", [4, 2, 3, 3], true);
      return net.conv("c", conv(x, weight, { padding: [1, 1, 1, 1], groups: 2 }), 1, 4);
    };
    expect(rowsOf(grouped, "a")).toEqual(["a.0[0,2]", "a.0[1,3]"]);
    expect(rowsOf(grouped, "b")).toEqual(["b.0[0,2]", "b.0[1,3]"]);
  });

  test("a depthwise convolution loses channels by itself", () => {
    const depthwise: Build = (net) =>
      net.conv("c", net.conv("depthwise", branches(net, 2), 2, 1), 1, 2);
    expect(rowsOf(depthwise, "a")).toEqual(["a.0[0]", "a.0[1]"]);
    expect(rowsOf(depthwise, "depthwise")).toEqual([
      "depthwise.0[0] c.1[0]",
      "depthwise.0[1] c.1[1]",
    ]);
  });

  test("what is gathered twice is removed twice", () => {
    const twice: Build = (net) => net.conv("c", gather(branches(net, 2), [0, 1, 0], 1), 1, 3);
    expect(rowsOf(twice, "a")).toEqual(["a.0[0]", "a.0[1]"]);
  });
});
