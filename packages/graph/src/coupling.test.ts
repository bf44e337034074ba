import { describe, expect, test } from "vitest";
import { type AdditionPolicy, coupleSlices } from "./coupling.ts";
import { linear, matmul } from "./ops/contract.ts";
import { conv } from "./ops/convolution.ts";
import { add, multiply, relu } from "./ops/elementwise.ts";
import { input, scalar } from "./ops/leaf.ts";
import { batchNorm, layerNorm, mean, perChannel, softmax } from "./ops/normalize.ts";
import { maxPool } from "./ops/pool.ts";
import { concat, gather, place, reshape, slice, transpose } from "./ops/shape.ts";
import type { Shape, Value } from "./value.ts";

/** Declares parameters by name and lists what is coupled, as "name.axis[index] …" per class. */
class Net {
  readonly parameters = new Map<string, { value: Value; producesRows: boolean }>();

  weight(name: string, shape: Shape): Value {
    return this.#declare(name, shape, true);
  }

  vector(name: string, size: number): Value {
    return this.#declare(name, [size], false);
  }

  norm(name: string, x: Value): Value {
    const vector = (field: string) => this.vector(`${name}.${field}`, x.shape[1]);
    const [scale, bias] = [vector("scale"), vector("bias")];
    return batchNorm(x, { scale, bias, mean: vector("mean"), variance: vector("variance") }, 1e-5);
  }

  conv(name: string, x: Value, outputs: number, groups = 1): Value {
    const shape = [outputs, x.shape[1] / groups, 3, 3];
    return conv(x, this.weight(name, shape), { padding: [1, 1, 1, 1], groups });
  }

  /** The class of each row of `weight`: the other slices it takes along; "fixed" where it must stay. */
  rows(output: Value, weight: string, policy: AdditionPolicy = "together"): string[] {
    const coupled = coupleSlices([output], this.parameters, policy);
    const { value } = this.parameters.get(weight)!;
    return Array.from({ length: value.shape[0] }, (_, row) => {
      const found = coupled.find(({ slices }) =>
        slices.some(
          ({ parameter, axis, index }) => parameter === weight && axis === 0 && index === row,
        ),
      )!;
      if (found.fixed) return "fixed";
      return found.slices
        .filter(({ parameter, axis }) => parameter !== weight || axis !== 0)
        .map(({ parameter, axis, index }) => `${parameter}.${axis}[${index}]`)
        .join(" ");
    });
  }

  #declare(name: string, shape: Shape, producesRows: boolean): Value {
    const value = input(name, shape);
    this.parameters.set(name, { value, producesRows });
    return value;
  }
}

const image = () => input("image", [1, 3, 4, 4]);

describe("coupled slices", () => {
  test("a convolution's rows take their norm and the next layer's columns along", () => {
    const net = new Net();
    const hidden = relu(net.norm("n", net.conv("a", image(), 2)));
    const output = net.conv("b", hidden, 2);
    expect(net.rows(output, "a")).toEqual([
      "n.scale.0[0] n.bias.0[0] n.mean.0[0] n.variance.0[0] b.1[0]",
      "n.scale.0[1] n.bias.0[1] n.mean.0[1] n.variance.0[1] b.1[1]",
    ]);
    expect(net.rows(output, "b")).toEqual(["fixed", "fixed"]);
  });

  test("a bias goes with its channel", () => {
    const net = new Net();
    const hidden = add(net.conv("a", image(), 2), perChannel(net.vector("bias", 2), 4));
    expect(net.rows(net.conv("b", hidden, 1), "a", "apart")).toEqual([
      "bias.0[0] b.1[0]",
      "bias.0[1] b.1[1]",
    ]);
  });

  test("an addition joins both branches, or neither when they are pruned apart", () => {
    const net = new Net();
    const stem = relu(net.conv("stem", image(), 2));
    const output = net.conv("head", add(net.conv("branch", stem, 2), stem), 1);
    expect(net.rows(output, "stem")[1]).toBe("branch.0[1] branch.1[1] head.1[1]");
    expect(net.rows(output, "branch", "apart")).toEqual(["", ""]);
    expect(net.rows(output, "stem", "apart")).toEqual(["branch.1[0]", "branch.1[1]"]);
  });

  test("padding with zeros couples only what is not padded", () => {
    const net = new Net();
    const narrow = net.conv("narrow", image(), 2);
    const wide = net.conv("wide", narrow, 4);
    const output = net.conv("head", add(wide, place(narrow, [1, 2], 4, 1)), 1);
    expect(net.rows(output, "wide")).toEqual([
      "head.1[0]",
      "narrow.0[0] wide.1[0] head.1[1]",
      "narrow.0[1] wide.1[1] head.1[2]",
      "head.1[3]",
    ]);
  });

  test("concatenation, split and gather move indices", () => {
    const net = new Net();
    const joined = concat([net.conv("a", image(), 1), net.conv("b", image(), 2)], 1);
    const [first, second] = [slice(joined, 1, 0, 2), slice(joined, 1, 2, 3)];
    const output = concat([net.conv("c", first, 1), net.conv("d", second, 1)], 1);
    expect(net.rows(output, "a")).toEqual(["c.1[0]"]);
    expect(net.rows(output, "b")).toEqual(["c.1[1]", "d.1[0]"]);
    const turned = net.conv("e", gather(joined, [2, 0, 1], 1), 1);
    expect(net.rows(turned, "a")).toEqual(["e.1[1]"]);
  });

  test("flattening spreads a channel over the columns of a linear layer", () => {
    const net = new Net();
    const pooled = maxPool(net.conv("a", image(), 2), {
      kernel: [2, 2],
      strides: [2, 2],
      padding: [0, 0, 0, 0],
    });
    const output = linear(reshape(pooled, [1, 8]), net.weight("fc", [1, 8]));
    expect(net.rows(output, "a")[1]).toBe("fc.1[4] fc.1[5] fc.1[6] fc.1[7]");
  });

  test("averages over positions keep channels apart, averages over channels fix them", () => {
    const net = new Net();
    const hidden = net.conv("a", image(), 2);
    expect(net.rows(linear(mean(hidden, [2, 3]), net.weight("fc", [1, 2])), "a")[0]).toBe(
      "fc.1[0]",
    );
    expect(net.rows(mean(hidden, [1]), "a")).toEqual(["fixed", "fixed"]);
  });

  test("depthwise convolutions go with their channel; other groups stay of equal size", () => {
    const net = new Net();
    const depthwise = net.conv("depthwise", net.conv("a", image(), 2), 2, 2);
    expect(net.rows(net.conv("head", depthwise, 1), "a")).toEqual([
      "depthwise.0[0] head.1[0]",
      "depthwise.0[1] head.1[1]",
    ]);
    const grouped = new Net();
    const output = grouped.conv("grouped", grouped.conv("a", image(), 4), 4, 2);
    expect(grouped.rows(grouped.conv("head", output, 1), "a")[0]).toBe(
      "a.0[2] grouped.1[0]".replace("a.0[2] ", ""),
    );
    const [first, second] = coupleSlices([grouped.conv("tail", output, 1)], grouped.parameters)
      .filter(({ slices }) => slices.some(({ parameter, axis }) => parameter === "a" && axis === 0))
      .map(({ slices }) => slices.filter(({ parameter, axis }) => parameter === "a" && axis === 0));
    expect([first.length, second.length]).toEqual([2, 2]);
  });

  test("a product couples its factors even where sums do not", () => {
    const net = new Net();
    const gated = multiply(net.conv("a", image(), 2), net.conv("b", image(), 2));
    expect(net.rows(net.conv("c", gated, 1), "a", "apart")[1]).toBe("b.0[1] c.1[1]");
  });

  test("heads: rows of a head move together through the split of an axis", () => {
    const net = new Net();
    const x = input("x", [1, 3, 4]);
    const split = (name: string) =>
      transpose(reshape(linear(x, net.weight(name, [4, 4])), [1, 3, 2, 2]), [0, 2, 1, 3]);
    const scores = matmul(split("q"), transpose(split("k")));
    const mixed = matmul(softmax(multiply(scores, scalar(0.7))), split("v"));
    const merged = reshape(transpose(mixed, [0, 2, 1, 3]), [1, 3, 4]);
    const output = linear(merged, net.weight("o", [4, 4]));
    const head = (first: number, second: number) =>
      ["q.0", "k.0", "o.1"].flatMap((of) => [`${of}[${first}]`, `${of}[${second}]`]).join(" ");
    expect(net.rows(output, "v")).toEqual([head(0, 1), head(0, 1), head(2, 3), head(2, 3)]);
  });

  test("layer normalisation fixes what it averages over", () => {
    const net = new Net();
    const hidden = linear(input("x", [2, 3]), net.weight("a", [4, 3]));
    const output = layerNorm(hidden, net.vector("scale", 4), net.vector("bias", 4), 1e-5);
    expect(net.rows(linear(output, net.weight("b", [1, 4])), "a")).toEqual(
      new Array(4).fill("fixed"),
    );
  });

  test("parameters that nothing uses, and single channels", () => {
    const net = new Net();
    net.weight("unused", [2, 2]);
    const output = net.conv("b", net.conv("a", image(), 1), 1);
    expect(net.rows(output, "a")).toEqual(["b.1[0]"]);
    expect(net.rows(output, "unused")).toEqual(["", ""]);
  });

  test("several outputs and inputs", () => {
    const net = new Net();
    const shared = relu(
      add(net.conv("a", image(), 2), net.conv("b", input("second", [1, 1, 4, 4]), 2)),
    );
    const heads = [net.conv("c", shared, 1), net.conv("d", shared, 1)];
    const coupled = coupleSlices(heads, net.parameters);
    const first = coupled.find(({ slices }) => slices.some(({ parameter }) => parameter === "b"))!;
    expect(first.slices.map(({ parameter, axis }) => `${parameter}.${axis}`)).toEqual([
      "a.0",
      "b.0",
      "c.1",
      "d.1",
    ]);
  });
});
