import {
  applyDecisions,
  bindParameters,
  type ComponentGroup,
  compensate,
  componentGroups,
  type Decision,
  type Decisions,
  type Model,
  type ModelConfig,
  makePlan,
  measureSensitivity,
  observeImplants,
  type PlanOptions,
  Random,
  selectRows,
  sizeOfModel,
} from "@espalier/core";
import { exportOnnx, float32Data, type Tensor, type Value } from "@espalier/graph";
import { createOnnxExecutor, openOnnxModel } from "@espalier/runtime-onnx";
import { Matrix } from "ml-matrix";
import { describe, expect, test } from "vitest";
import { type Head, makeImplant, truncateProduct } from "./implants.ts";
import { bert } from "./index.ts";
import { randomSamples, tinyLogits, tinyModel } from "./testing/index.ts";

const executor = createOnnxExecutor({ threads: 1 });
const HEAD_SIZE = 4;
const HEADS = 5;
const shape = {
  hidden_size: HEADS * HEAD_SIZE,
  num_attention_heads: HEADS,
  intermediate_size: 8,
};
const model = tinyModel(shape);
const groups = componentGroups(model, "apart");
const [first, , second] = groups;
const neurons = groups[1];
const samples = randomSamples(40);
const implantsOf = (...lists: readonly [ComponentGroup, readonly Decision[]][]): Decisions =>
  new Map(lists.map(([{ name }, decided]) => [name, decided]));
const mixed = implantsOf(
  [first, ["implant", "keep", "implant", "keep", "prune"]],
  [neurons, ["keep", "prune", "keep", "keep", "prune", "keep", "prune", "keep"]],
  [second, ["prune", "keep", "implant", "keep", "implant"]],
);
const everyHead = (decision: Decision) => new Array<Decision>(HEADS).fill(decision);
const all = implantsOf([first, everyHead("implant")], [second, everyHead("implant")]);

const logitsOf = (of: Model, on = samples) => tinyLogits(executor, of, on);
const observed = (decisions: Decisions, batchSize = 7) =>
  observeImplants(model, groups, decisions, { executor, samples, batchSize });

/** `model` with implants of any rank, that of the head itself too. */
async function ranked(decisions: Decisions, rank: number, fitted: boolean): Promise<Model> {
  const graph = model.build(1, "evaluation");
  const selection = [...selectRows(groups, decisions, graph)].map(
    ([weight, rows]) =>
      [weight, rows.map((row) => (row.implant ? { ...row, rank } : row))] as const,
  );
  return model.prune(new Map(selection), fitted ? await observed(decisions) : undefined);
}

function distance(a: ArrayLike<number>, b: ArrayLike<number>): number {
  return Array.from(a).reduce((total, x, i) => total + (x - b[i]) ** 2, 0);
}

// Of one layer alone, whose inputs are the same before and after.
const firstLayer = implantsOf([first, everyHead("implant")]);

/** What the attention of the first layer adds, at positions that are not filled up. */
async function attended(of: Model): Promise<Float32Array> {
  const normalized = `${first.name.replace("self.value", "output.LayerNorm")}.weight`;
  const batch = await samples.batch([...Array(samples.count).keys()]);
  const { graph, constants } = bindParameters(of, samples.count, "evaluation", batch.length);
  const scale = graph.parameters.get(normalized)!;
  const find = (value: Value): Value | undefined =>
    value.operation.name === "layerNorm" && value.inputs[1] === scale
      ? value.inputs[0]
      : value.inputs.map(find).find((found) => found !== undefined);
  const program = await executor.compile({ outputs: { x: find(graph.logits)! }, constants });
  const data = float32Data((await program.run(batch.feeds)).x);
  await program.dispose();
  const mask = batch.feeds.attention_mask;
  return data.map((x, i) => (mask[Math.floor(i / shape.hidden_size)] ? x : 0));
}

const close = (actual: ArrayLike<number>, expected: ArrayLike<number>, digits = 4) => {
  expect(actual).toHaveLength(expected.length);
  for (let i = 0; i < expected.length; i++) expect(actual[i]).toBeCloseTo(expected[i], digits);
};

function randomMatrix(rows: number, columns: number, random: Random): Matrix {
  return Matrix.from1DArray(
    rows,
    columns,
    Array.from({ length: rows * columns }, () => random.normal()),
  );
}

describe("a truncated product", () => {
  const random = new Random(9);
  const size = 6;
  const [left, right] = ["left", "right"].map((name) => {
    const root = randomMatrix(size, 2 * size, random.stream(name));
    return root.mmul(root.transpose());
  });
  /** tr(A (I - Z) B (I - Z)ᵀ). */
  const errorOf = (z: Matrix) => {
    const rest = Matrix.sub(Matrix.eye(size), z);
    return left.mmul(rest).mmul(right).mmul(rest.transpose()).trace();
  };
  const product = (rank: number) => {
    const { left: p, right: r } = truncateProduct(left, right, rank);
    expect([p.rows, p.columns, r.rows, r.columns]).toEqual([size, rank, size, rank]);
    return p.mmul(r.transpose());
  };

  test("is the product at full rank, also where moments are singular", () => {
    close(product(size).to1DArray(), Matrix.eye(size).to1DArray(), 6);
    const one = randomMatrix(size, 1, random.stream("one"));
    const singular = one.mmul(one.transpose());
    const { left: p, right: r } = truncateProduct(singular, Matrix.zeros(size, size), size);
    close(p.mmul(r.transpose()).to1DArray(), Matrix.eye(size).to1DArray(), 6);
  });

  test("loses the smallest singular values, and nothing near it loses less", () => {
    let before = Number.POSITIVE_INFINITY;
    for (let rank = 1; rank < size; rank++) {
      const { left: p, right: r } = truncateProduct(left, right, rank);
      const error = errorOf(p.mmul(r.transpose()));
      expect(error).toBeLessThan(before);
      before = error;
      for (let k = 0; k < 20; k++) {
        const noise = random.stream("noise", rank, k);
        const [dp, dr] = [p, r].map(({ rows, columns }) =>
          randomMatrix(rows, columns, noise.stream(rows)).mul(1e-2),
        );
        const moved = Matrix.add(p, dp).mmul(Matrix.add(r, dr).transpose());
        expect(errorOf(moved)).toBeGreaterThan(error);
      }
    }
  });
});

test("an implant at full rank has the scores and results of its head, biases and all", () => {
  const random = new Random(4);
  const rows = (name: string) => ({
    weight: randomMatrix(3, 5, random.stream(name)),
    bias: randomMatrix(3, 1, random.stream(name, "bias")),
  });
  const output = randomMatrix(5, 3, random.stream("output"));
  const head: Head = { query: rows("query"), key: rows("key"), value: rows("value"), output };
  const implant = makeImplant(head, 3);
  const apply = ({ weight, bias }: Head["query"], x: Matrix) => weight.mmul(x).add(bias);
  for (let k = 0; k < 5; k++) {
    const [x, y] = [0, 1].map((side) => randomMatrix(5, 1, random.stream("input", k, side)));
    const score = (of: Head) => apply(of.query, x).transpose().mmul(apply(of.key, y)).get(0, 0);
    expect(score(implant)).toBeCloseTo(score(head), 6);
    const result = (of: Head) => of.output.mmul(apply(of.value, x));
    close(result(implant).add(implant.constant).to1DArray(), result(head).to1DArray(), 6);
  }
});

describe("implants of heads", () => {
  test.each([
    ["fitted to samples", true],
    ["of the weights alone", false],
  ])("at full rank, %s, change nothing", async (_name, fitted) => {
    const same = await ranked(all, HEAD_SIZE, fitted);
    expect([...same.parameters.keys()].some((name) => name.endsWith("query.weight"))).toBe(false);
    const [before, after] = [await logitsOf(model), await logitsOf(same)];
    before.forEach((x, i) => {
      expect(Math.abs(after[i] - x)).toBeLessThan(1e-4);
    });
  });

  test("are smaller and cheaper, the more so the lower the rank, and err more", async () => {
    const dense = await attended(model);
    const gone = applyDecisions(model, groups, implantsOf([first, everyHead("prune")]));
    const withoutHeads = distance(await attended(gone), dense);
    let size = sizeOfModel(model);
    let error = 1e-6;
    for (let rank = HEAD_SIZE - 1; rank >= 1; rank--) {
      const pruned = await ranked(firstLayer, rank, true);
      const own = sizeOfModel(pruned);
      expect(own.macs).toBeLessThan(size.macs);
      expect(own.parameters).toBeLessThan(size.parameters);
      const lost = distance(await attended(pruned), dense);
      expect(lost).toBeGreaterThan(1.2 * error);
      [size, error] = [own, lost];
    }
    expect(withoutHeads).toBeGreaterThan(1.2 * error);
  });

  test("fitted to samples lose less there than those of the weights alone", async () => {
    const dense = await attended(model);
    for (const rank of [1, 2]) {
      const plain = distance(await attended(await ranked(firstLayer, rank, false)), dense);
      const fitted = distance(await attended(await ranked(firstLayer, rank, true)), dense);
      expect(fitted).toBeLessThan(0.9 * plain);
    }
  });

  test("do not depend on how samples are split, nor on what they are filled up with", async () => {
    const [one, many] = await Promise.all([observed(mixed, 1), observed(mixed, 40)]);
    expect([...one.keys()]).toEqual([`${first.name}.weight`, `${second.name}.weight`]);
    for (const [weight, sums] of one) {
      sums.forEach((sum, i) => {
        const largest = Math.max(...sum.map(Math.abs));
        close(
          Array.from(sum, (x) => x / largest),
          Array.from(many.get(weight)![i], (x) => x / largest),
          5,
        );
      });
    }
    // The last of the sums over contexts counts the positions that are not filled up.
    const batch = await samples.batch([...Array(40).keys()]);
    const present = (batch.feeds.attention_mask as BigInt64Array).reduce((a, b) => a + b, 0n);
    expect(one.get(`${first.name}.weight`)![2].at(-1)).toBe(Number(present));
  });

  test("without any asked for, nothing is computed", async () => {
    expect(await observed(implantsOf([first, everyHead("prune")]))).toEqual(new Map());
  });

  const pruned = async () =>
    applyDecisions(model, groups, mixed, { implantRank: 2, observed: await observed(mixed) });

  test("are components again, which can be removed but not replaced", async () => {
    const once = await pruned();
    const left = componentGroups(once, "apart");
    expect(
      left.map(({ kind, count, span, implants, implantable }) => [
        ...[kind, count, span, implants, implantable],
      ]),
    ).toEqual([
      ["head", 2, HEAD_SIZE, false, true],
      ["head", 2, 2, true, false],
      ["neuron", 5, undefined, false, false],
      ["head", 2, HEAD_SIZE, false, true],
      ["head", 2, 2, true, false],
      ["neuron", 8, undefined, false, false],
    ]);
    const again = applyDecisions(
      once,
      left,
      implantsOf(
        [left[0], ["implant", "keep"]],
        [left[1], ["prune", "keep"]],
        [left[4], ["prune", "prune"]],
      ),
      { implantRank: 1 },
    );
    expect(again.config.pruning).toEqual({
      heads: { 0: [3], 1: [1, 3] },
      implants: { 0: { 1: [1], 2: [2] } },
      neurons: { 0: [0, 2, 3, 5, 7] },
    });
    // One of a kind is a component, too.
    const last = componentGroups(again, "apart");
    expect(last.map(({ kind, count, span }) => [kind, count, span])).toEqual([
      ["head", 1, HEAD_SIZE],
      ["head", 1, 1],
      ["head", 1, 2],
      ["neuron", 5, undefined],
      ["head", 2, HEAD_SIZE],
      ["neuron", 8, undefined],
    ]);
    for (const { rows } of last.slice(0, 3)) expect(rows).toHaveLength(6);
    const none = applyDecisions(
      again,
      last,
      implantsOf(
        ...last.slice(0, 3).map((group) => [group, ["prune"]] as [ComponentGroup, Decision[]]),
      ),
    );
    expect(none.config.pruning).toMatchObject({ heads: { 0: [], 1: [1, 3] }, implants: {} });
    expect([...none.parameters.keys()].join()).not.toMatch(/layer\.0\.attention\.self/);
    // The implant that is left is the one that was there.
    const rows = (of: Model) => of.parameters.get(`${first.name}.implant.2.weight`)!.data;
    expect([...rows(again)]).toEqual([...rows(once).slice(2 * shape.hidden_size)]);
  });

  test("masked are as if removed", async () => {
    const once = await pruned();
    const left = componentGroups(once, "apart");
    const parameters = new Map(once.parameters);
    for (const kind of ["weight", "bias"]) {
      const name = `${first.name}.implant.2.${kind}`;
      const { data, ...parameter } = parameters.get(name)!;
      parameters.set(name, {
        ...parameter,
        data: data.map((x, i) => (i < data.length / 2 ? 0 : x)),
      });
    }
    const removed = applyDecisions(once, left, implantsOf([left[1], ["prune", "keep"]]));
    close(await logitsOf(removed), await logitsOf(once.withParameters(parameters)));
  });

  test("are rebuilt from configuration and tensors alone", async () => {
    const once = await pruned();
    const config = JSON.parse(JSON.stringify(once.config)) as ModelConfig;
    expect(config.pruning).toMatchObject({ implants: { 0: { 2: [0, 2] }, 1: { 2: [2, 4] } } });
    const loaded = bert.load({ config, path: "file", tensors: once.parameters }, config);
    expect([...(await logitsOf(loaded))]).toEqual([...(await logitsOf(once))]);
  });

  test("multiplied out are heads of a dense encoder, with equal logits", async () => {
    const once = await pruned();
    const dense = once.denseEquivalent!();
    expect(dense.config).not.toHaveProperty("pruning");
    expect([...dense.parameters.keys()]).toEqual([...model.parameters.keys()]);
    for (const [name, { shape }] of dense.parameters) {
      expect(shape).toEqual(model.parameters.get(name)!.shape);
    }
    close(await logitsOf(dense), await logitsOf(once));
  });

  test("exported take batches of any size and length", async () => {
    const once = await pruned();
    const exported = await openOnnxModel(
      exportOnnx((batch, length) => {
        const { graph, constants } = bindParameters(once, batch, "evaluation", length);
        return { outputs: { logits: graph.logits }, constants };
      }),
    );
    for (const rows of [[0], [1, 2, 3]]) {
      const { feeds, length } = await samples.batch(rows);
      const inputs = Object.entries(feeds).map(([name, data]): [string, Tensor] => [
        name,
        { dtype: "int64", shape: [rows.length, length!], data: data as BigInt64Array },
      ]);
      const { logits } = await exported.run(Object.fromEntries(inputs));
      const own = await logitsOf(once, {
        count: rows.length,
        batch: (indices) => samples.batch(Array.from(indices, (i) => rows[i])),
      });
      close(float32Data(logits), own);
    }
    await exported.dispose();
  });

  test.each([
    [{ 0: { 5: [1] } }, /pruning.implants.0.5: expected a rank up to 4/],
    [{ 0: { 2: [0] } }, /pruning.implants.0.2: expected heads that are not elsewhere, got 0/],
    [{ 0: { 1: [1], 2: [1] } }, /pruning.implants.0.2: expected heads .*got 1/],
    [{ 0: { 2: [5] } }, /pruning.implants.0.2: expected numbers below 5, got 5/],
    [{ 2: { 2: [1] } }, /pruning.implants.2.2: expected a layer below 2/],
    [{ 0: { 0: [1] } }, /config.pruning.implants.0.0/],
    [{ 0: { 2: [1, 1] } }, /expected distinct numbers/],
    [{ 0: [1] }, /config.pruning.implants.0/],
  ])("in a configuration as %j are refused", (implants, message) => {
    const config = {
      ...model.config,
      pruning: { heads: { 0: [0], 1: [0, 1, 2, 3, 4] }, implants, neurons: {} },
    };
    expect(() => bert.load({ config, path: "file", tensors: new Map() }, config)).toThrow(message);
  });
});

describe("plans", () => {
  const options: PlanOptions = {
    budget: { of: "components", keep: 0.5 },
    implant: 0.4,
    scope: "kind",
    rankBy: "score",
    floor: 0,
    wholeBranches: true,
    roundTo: 1,
  };
  const plan = async (changes: Partial<PlanOptions> = {}) => {
    const sensitivity = await measureSensitivity(model, {
      ...{ executor, samples, batchSize: 40, random: new Random(0), temperature: 1 },
      ...{ metric: "magnitude", estimator: "auto", coupling: "apart" },
    });
    return makePlan(model, sensitivity, { ...options, ...changes });
  };

  test("make the share of the heads given up implants that is asked for, and no neurons", async () => {
    const { decisions, after } = await plan();
    const counted = (group: ComponentGroup, wanted: Decision) =>
      decisions.get(group.name)!.filter((decision) => decision === wanted).length;
    const heads = [first, second];
    const total = (wanted: Decision) =>
      heads.reduce((sum, group) => sum + counted(group, wanted), 0);
    expect([total("keep"), total("implant"), total("prune")]).toEqual([5, 2, 3]);
    expect(after.implants).toBe(2);
  });

  test("count what implants cost at the rank asked for", async () => {
    const [one, three] = [await plan({ implantRank: 1 }), await plan({ implantRank: 3 })];
    expect(one.decisions).toEqual(three.decisions);
    // Queries, keys, values with their biases, and columns of the output.
    const perRow = 3 * (shape.hidden_size + 1) + shape.hidden_size;
    expect(three.after.parameters - one.after.parameters).toBe(2 * 2 * perRow);
    expect((await plan()).after).toEqual(one.after);
  });

  test.each([4, 0, 1.5])("refuse rank %d of heads of size 4", async (implantRank) => {
    await expect(plan({ implantRank })).rejects.toThrow(
      `implant-rank: expected a whole number from 1 to 3, as the components of ${first.name} have 4 rows, got ${implantRank}`,
    );
  });
});

describe("compensation", () => {
  const fit = (of: Model, batchSize = 40, memoryLimit?: number) =>
    compensate(model, of, samples, {
      executor:
        memoryLimit === undefined ? executor : createOnnxExecutor({ threads: 1, memoryLimit }),
      batchSize,
      random: new Random(0),
    });
  const prunings: [string, Decisions][] = [
    ["with implants", mixed],
    [
      "without the heads of a layer and the neurons of another",
      implantsOf([first, everyHead("prune")], [groups[3], new Array<Decision>(8).fill("prune")]),
    ],
  ];

  test.each(prunings)(
    "brings outputs closer to the dense model's: %s",
    async (_name, decisions) => {
      const pruned = applyDecisions(model, groups, decisions, {
        observed: await observed(decisions),
      });
      const dense = await logitsOf(model);
      const lost = distance(await logitsOf(pruned), dense);
      const fitted = await fit(pruned);
      expect(distance(await logitsOf(fitted), dense)).toBeLessThan(0.9 * lost);
      const changed = [...fitted.parameters].filter(
        ([name, { data }]) => distance(data, pruned.parameters.get(name)!.data) > 0,
      );
      for (const [name] of changed) expect(name).toMatch(/\d\.(attention\.)?output\.dense\./);
    },
  );

  test("brings sums of branches as near as their last layers can", async () => {
    // Neurons, of which none is gone, can make up for heads.
    const pruned = applyDecisions(model, groups, implantsOf([first, everyHead("prune")]));
    const hiddenOf = async (of: Model) => {
      const { graph, constants } = bindParameters(of, 40, "evaluation", 8);
      const program = await executor.compile({
        outputs: Object.fromEntries(graph.hidden!.map((value, i) => [String(i), value])),
        constants,
      });
      const { feeds } = await samples.batch([...Array(40).keys()]);
      const results = await program.run(feeds);
      await program.dispose();
      return graph.hidden!.map((_, i) => float32Data(results[i]));
    };
    const dense = await hiddenOf(model);
    const [lost, left] = await Promise.all(
      [pruned, await fit(pruned)].map(async (of) =>
        (await hiddenOf(of)).map((values, i) => distance(values, dense[i])),
      ),
    );
    expect(left[0]).toBeLessThan(0.4 * lost[0]);
    // Fitted to what they put out themselves, layers leave 0.29 of it.
    expect(left[1]).toBeLessThan(0.26 * lost[1]);
  });

  test("a block that has lost everything puts out the mean of what it did", async () => {
    const [, decisions] = prunings[1];
    const pruned = applyDecisions(model, groups, decisions);
    const fitted = await fit(pruned);
    const name = first.name.replace("self.value", "output.dense");
    // Of the first layer: what the block added in the dense model, over positions not filled up.
    const { graph, constants } = bindParameters(model, 40, "evaluation", 8);
    const weight = graph.parameters.get(`${name}.weight`)!;
    const find = (value: Value): Value | undefined =>
      value.inputs[1] === weight
        ? value
        : value.inputs.map(find).find((found) => found !== undefined);
    const program = await executor.compile({ outputs: { y: find(graph.logits)! }, constants });
    const { feeds } = await samples.batch([...Array(40).keys()]);
    const y = float32Data((await program.run(feeds)).y);
    await program.dispose();
    const width = shape.hidden_size;
    const mask = Array.from(feeds.attention_mask as BigInt64Array, Number);
    const present = mask.reduce((a, b) => a + b, 0);
    const bias = model.parameters.get(`${name}.bias`)!.data;
    const mean = Array.from(
      { length: width },
      (_, c) => bias[c] + mask.reduce((sum, m, k) => sum + m * y[k * width + c], 0) / present,
    );
    close(fitted.parameters.get(`${name}.bias`)!.data, mean);
  });

  test("batches, their lengths and a memory limit change nothing but rounding", async () => {
    const pruned = applyDecisions(model, groups, mixed, { observed: await observed(mixed) });
    const { parameters } = await fit(pruned);
    const refused = (await fit(pruned, 40, 1).catch((error: unknown) => error)) as {
      data: { peakBytes: number };
    };
    const others = [await fit(pruned, 3), await fit(pruned, 40, 3 * refused.data.peakBytes)];
    for (const { parameters: other } of others) {
      for (const [name, { data }] of parameters) {
        const scale = Math.max(...data.map(Math.abs));
        other.get(name)!.data.forEach((x, i) => {
          expect(Math.abs(x - data[i]) / scale).toBeLessThan(2e-3);
        });
      }
    }
  });

  test("where nothing was pruned, nothing changes", async () => {
    const same = applyDecisions(model, groups, new Map());
    expect(await fit(same)).toBe(same);
  });
});

describe("an implant fitted to fewer positions than a head has numbers", () => {
  const size = 32;
  const random = new Random("few");
  const rows = (name: string) => ({
    weight: randomMatrix(size, size, random.stream(name, "weight")),
    bias: randomMatrix(size, 1, random.stream(name, "bias")),
  });
  const head: Head = {
    ...{ query: rows("query"), key: rows("key"), value: rows("value") },
    output: randomMatrix(size, size, random.stream("output")),
  };
  const moments = (vectors: Matrix) =>
    // As they come from programs that compute in float32.
    vectors.mmul(vectors.transpose()).apply(function (this: Matrix, i, j) {
      this.set(i, j, Math.fround(this.get(i, j)));
    });

  test.each([1, 5, 31])("is finite: %i", (positions) => {
    // Means that are large beside what varies.
    const of = (name: string) =>
      randomMatrix(size, positions, random.stream(name, positions)).mul(0.1).add(10);
    const contexts = of("contexts").addRow(size, new Array(positions).fill(1));
    const implant = makeImplant(head, 8, {
      ...{ queries: moments(of("queries")), keys: moments(of("keys")) },
      contexts: moments(contexts),
    });
    const numbers = [
      ...[implant.query, implant.key, implant.value].flatMap(({ weight, bias }) => [weight, bias]),
      ...[implant.output, implant.constant],
    ].flatMap((matrix) => matrix.to1DArray());
    expect(numbers.every(Number.isFinite)).toBe(true);
  });
});
