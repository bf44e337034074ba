import {
  applyDecisions,
  bindParameters,
  type CheckpointSource,
  compensate,
  componentGroups,
  countComponents,
  type Decision,
  type Model,
  type ModelConfig,
  type ModelFamily,
  makePlan,
  measureSensitivity,
  Random,
  type RankBy,
  type Sensitivity,
  sizeOfModel,
  spearman,
} from "@espalier/core";
import { float32Data } from "@espalier/graph";
import { createOnnxExecutor } from "@espalier/runtime-onnx";
import { describe, expect, test } from "vitest";
import { cifarResNet, cifarResNetConfig } from "./cifar-resnet.ts";
import { preResNet, preResNetConfig } from "./pre-resnet.ts";
import { resNet, resNetConfig } from "./resnet.ts";
import {
  logitsOf as logits,
  noiseSamples,
  prunedMinusMasked,
  randomDecisions,
  randomStatistics,
} from "./testing/index.ts";
import { vgg, vggConfig } from "./vgg.ts";

const families: readonly ModelFamily[] = [cifarResNet, preResNet, vgg, resNet];
const executor = createOnnxExecutor({ threads: 1 });

const logitsOf = (model: Model, count?: number) => logits(model, executor, count);

test("channels that are normalised where they are read are scored by what goes there", async () => {
  const count = 64;
  const config = {
    ...preResNetConfig(20, [6, 8, 10]),
    ...{ num_labels: 3, id2label: { 0: "a", 1: "b", 2: "c" } },
    image: { shape: [3, 8, 8] as const, mean: [0, 0, 0], std: [1, 1, 1] },
  };
  const shifts = new Random(5);
  const withData = (of: Model, dataOf: (name: string, data: Float32Array) => Float32Array) =>
    of.withParameters(
      new Map(
        [...of.parameters].map(([name, parameter]) => [
          name,
          { ...parameter, data: dataOf(name, parameter.data) },
        ]),
      ),
    );
  const shifted = withData(preResNet.initialize(config, new Random(0)), (name, data) =>
    /bn\d?\.bias$/.test(name) ? data.map(() => 0.3 * shifts.normal()) : data,
  );
  // Stored statistics are those of the samples.
  const { graph, constants } = bindParameters(shifted, count, "training");
  const observing = await executor.compile({
    outputs: Object.fromEntries(graph.statistics),
    constants,
  });
  const { feeds } = await noiseSamples(shifted, count).batch([...Array(count).keys()]);
  const observed = await observing.run(feeds);
  await observing.dispose();
  const model = withData(shifted, (name, data) =>
    name in observed ? float32Data(observed[name]).slice() : data,
  );
  const dense = await logitsOf(model, count);
  /** Half of δᵀ H δ, H being the Hessian of the loss in the outputs and δ what these change by. */
  const costOf = async (pruned: Model) => {
    const left = await logitsOf(pruned, count);
    let total = 0;
    for (let n = 0; n < count; n++) {
      const row = (values: ArrayLike<number>) => [0, 1, 2].map((c) => values[3 * n + c]);
      const exponentials = row(dense).map(Math.exp);
      const sum = exponentials.reduce((a, b) => a + b);
      const change = row(left).map((value, c) => value - dense[3 * n + c]);
      const average = change.reduce((all, each, c) => all + (each * exponentials[c]) / sum, 0);
      change.forEach((each, c) => {
        total += (exponentials[c] / sum) * (each - average) ** 2;
      });
    }
    return total / count / 2;
  };
  const { groups } = await measureSensitivity(model, {
    ...{ executor, samples: noiseSamples(model, count), metric: "removal", estimator: "exact" },
    ...{ temperature: 1, coupling: "together", batchSize: count, random: new Random(0) },
  });
  const all = groups.map(({ group }) => group);
  const [scores, costs]: [number[], number[]] = [[], []];
  for (const { group, scores: own } of groups) {
    // Of the stream, which ends in the last normalisation.
    if (!group.rows.some(({ parameter }) => parameter === "layer3.0.conv3.weight")) continue;
    for (const [i, score] of own.entries()) {
      const decisions = Array.from(
        { length: group.count },
        (_, k): Decision => (k === i ? "prune" : "keep"),
      );
      scores.push(score);
      costs.push(await costOf(applyDecisions(model, all, new Map([[group.name, decisions]]))));
    }
  }
  expect(scores).toHaveLength(config.widths[2]);
  expect(spearman(scores, costs)).toBeGreaterThan(0.9);
});

test("of plans for a budget, those by what components save in their turn give up less", () => {
  const model = vgg.initialize(
    { ...vggConfig(11), hidden_sizes: [16, 32, 64, 64, 64] },
    new Random(0),
  );
  const groups = componentGroups(model, "together");
  const lostBy = (rankBy: RankBy, scores: readonly Float64Array[]) => {
    const sensitivity: Sensitivity = {
      ...{ metric: "random", temperature: 1, coupling: "together", samples: 0, draws: 0 },
      ...{ negative: 0, rankStability: 1 },
      groups: groups.map((group, i) => ({
        ...{ group, scores: scores[i], standardErrors: new Float64Array(group.count) },
      })),
    };
    const { decisions, after, before } = makePlan(model, sensitivity, {
      ...{ budget: { of: "macs", keep: 0.4 }, implant: 0, scope: "kind", rankBy, floor: 0 },
      ...{ wholeBranches: true, roundTo: 1 },
    });
    expect(after.macs / before.macs).toBeGreaterThan(0.39);
    return groups
      .flatMap(({ name }, i) => [
        ...scores[i].filter((_, k) => decisions.get(name)![k] === "prune"),
      ])
      .reduce((a, b) => a + b, 0);
  };
  // Layers that differ in what they matter, so that some become narrow beside whole ones.
  const ratios = Array.from({ length: 8 }, (_, seed) => {
    const random = new Random(seed);
    const scores = groups.map(({ count, name }) => {
      const level = Math.exp(2 * random.stream(name).normal());
      return Float64Array.from({ length: count }, (_, k) => level * (1 + k / count));
    });
    return lostBy("score-per-saving", scores) / lostBy("score-per-cost", scores);
  });
  expect(Math.max(...ratios)).toBeLessThan(1.02);
  expect(ratios.reduce((a, b) => a + b) / ratios.length).toBeLessThan(0.97);
});

describe("parameters and multiply-accumulates equal those of the originals", () => {
  const bare = { batch_norm: false, conv_bias: true };
  test.each<[string, ModelFamily, ModelConfig, number, number]>([
    [
      "HAP's WideResNet32",
      cifarResNet,
      cifarResNet.presets["wideresnet32-cifar10"],
      7_427_914,
      1_100_679_680,
    ],
    [
      "EHAP's WRN-28-8",
      cifarResNet,
      cifarResNet.presets["wideresnet28-8-cifar10"],
      23_356_634,
      3_360_084_992,
    ],
    ["ResNet-56", cifarResNet, cifarResNetConfig(56), 855_770, 125_747_840],
    ["ResNet-32", cifarResNet, cifarResNetConfig(32), 466_906, 69_124_736],
    ["PreResNet29", preResNet, preResNetConfig(29), 2_235_850, 360_385_024],
    ["VGG16 of HAP, without batch norm", vgg, vggConfig(16, bare), 14_719_818, 313_201_664],
    ["VGG16-BN, convolutions without bias", vgg, vggConfig(16), 14_724_042, 313_201_664],
    [
      "VGG16-BN, convolutions with bias",
      vgg,
      vggConfig(16, { conv_bias: true }),
      14_728_266,
      313_201_664,
    ],
    ["VGG19 of HAP, without batch norm", vgg, vggConfig(19, bare), 20_029_514, 398_136_320],
    // Torchvision's documentation: 138,365,992 and 143,678,248 parameters, 15.47 and 19.63 GMACs.
    ["torchvision's vgg16_bn", vgg, vgg.presets["vgg16-bn-imagenet"], 138_365_992, 15_470_264_320],
    ["torchvision's vgg19_bn", vgg, vgg.presets["vgg19-bn-imagenet"], 143_678_248, 19_632_062_464],
    // Torchvision's documentation: 11,689,512, 21,797,672, 44,549,160 and 60,192,808 parameters, 1.81,
    // 3.66, 7.80 and 11.51 GMACs.
    ["ResNet-18", resNet, resNetConfig(18), 11_689_512, 1_814_073_344],
    ["ResNet-34", resNet, resNetConfig(34), 21_797_672, 3_663_761_408],
    ["ResNet-50", resNet, resNetConfig(50), 25_557_032, 4_089_184_256],
    ["ResNet-101", resNet, resNetConfig(101), 44_549_160, 7_801_405_440],
    ["ResNet-152", resNet, resNetConfig(152), 60_192_808, 11_513_626_624],
  ])("%s", (_name, family, config, parameters, macs) => {
    expect(countOf(family, config)).toEqual({ parameters, macs });
  });

  test("the paper's pools hold the rows of all weights, the classifier's too; ours leave those out", () => {
    const rowsOf = (family: ModelFamily, config: ModelConfig) => {
      const model = fresh(family, config);
      const groups = componentGroups(model, "apart");
      const components = groups.reduce((sum, { count }) => sum + count, 0);
      return components + model.classes.length;
    };
    expect(rowsOf(cifarResNet, cifarResNetConfig(56))).toBe(2138);
    expect(rowsOf(cifarResNet, cifarResNet.presets["wideresnet32-cifar10"])).toBe(4938);
    expect(rowsOf(preResNet, preResNetConfig(29))).toBe(4106);
    expect(rowsOf(vgg, vggConfig(16, bare))).toBe(4234);
    expect(rowsOf(vgg, vggConfig(19, bare))).toBe(5514);
    expect(rowsOf(resNet, resNetConfig(50))).toBe(27_560);
  });

  /** Without drawing numbers for millions of parameters. */
  const fresh = (family: ModelFamily, config: ModelConfig) =>
    family.initialize(config, { ...zeros, stream: () => zeros } as Random);
  const countOf = (family: ModelFamily, config: ModelConfig) => sizeOfModel(fresh(family, config));
  const zeros = { normal: () => 0, uniform: () => 0 };
});

const small = { image: { shape: [3, 32, 32] as const, mean: [0, 0, 0], std: [1, 1, 1] } };
const labels = { num_labels: 3, id2label: { 0: "a", 1: "b", 2: "c" } };
const tiny: [string, ModelFamily, ModelConfig][] = [
  [
    "WRN with a narrow stem",
    cifarResNet,
    { ...cifarResNetConfig(8, "projection", [6, 8, 10], 4), ...labels },
  ],
  ["PreResNet", preResNet, { ...preResNetConfig(20, [6, 8, 10]), ...labels }],
  ["VGG", vgg, { ...vggConfig(11), ...labels, hidden_sizes: [4, 6, 8, 8, 6] }],
  [
    "VGG without batch norm, with hidden neurons",
    vgg,
    {
      ...vggConfig(11, {
        batch_norm: false,
        conv_bias: true,
        last_pool: "max",
        classifier: [9, 7],
      }),
      ...labels,
      hidden_sizes: [4, 6, 8, 8, 6],
      image: { ...small.image, shape: [3, 64, 64] },
    },
  ],
  [
    "ResNet of basic blocks",
    resNet,
    {
      ...resNetConfig(18),
      ...small,
      ...labels,
      embedding_size: 6,
      hidden_sizes: [6, 8],
      depths: [2, 2],
    },
  ],
  [
    "ResNet of bottlenecks",
    resNet,
    {
      ...resNetConfig(50),
      ...small,
      ...labels,
      embedding_size: 6,
      hidden_sizes: [16, 24],
      depths: [2, 2],
    },
  ],
];

describe.each(tiny)("%s", (_name, family, config) => {
  const model = randomStatistics(family.initialize(config, new Random(3)), new Random(4));

  function decide(coupling: "together" | "apart", seed: number) {
    const groups = componentGroups(model, coupling);
    return { groups, decisions: randomDecisions(groups, new Random(seed), true) };
  }

  test("every layer has components, the last none", () => {
    for (const coupling of ["together", "apart"] as const) {
      const groups = componentGroups(model, coupling);
      const weights = [...model.parameters].filter(([, { kind }]) => kind === "weight");
      const covered = new Set(groups.flatMap(({ rows }) => rows.map(({ parameter }) => parameter)));
      const bare = weights.map(([name]) => name).filter((name) => !covered.has(name));
      expect(bare).toEqual([weights.at(-1)![0]]);
    }
  });

  test("pruned, it computes what the masked model does", async () => {
    for (const seed of [1, 2]) {
      expect(await prunedMinusMasked(model, executor, { seed })).toBeLessThan(1e-4);
    }
  });

  test("every estimator of the trace scores all that it has", async () => {
    for (const estimator of ["exact", "probe", "hutchinson", "control-variate"] as const) {
      const { groups } = await measureSensitivity(model, {
        ...{ executor, samples: noiseSamples(model, 4), metric: "hessian-trace", estimator },
        ...{ draws: 2, temperature: 1, coupling: "together", batchSize: 2, random: new Random(0) },
      });
      const scores = groups.flatMap((group) => [...group.scores]);
      expect(scores).toHaveLength(countComponents(groups.map(({ group }) => group)));
      expect(scores.filter(Number.isFinite)).toHaveLength(scores.length);
      expect(scores.some((score) => score > 0)).toBe(true);
    }
  });

  test("what a plan leaves has nothing that is not read, and is what the plan counts", async () => {
    const sensitivity = await measureSensitivity(model, {
      ...{ executor, samples: noiseSamples(model, 2), metric: "magnitude", estimator: "auto" },
      ...{ temperature: 1, coupling: "together", batchSize: 2, random: new Random(0) },
    });
    const groups = sensitivity.groups.map(({ group }) => group);
    for (const of of ["parameters", "macs"] as const) {
      for (const keep of [0.6, 0.4, 0.3]) {
        const plan = makePlan(model, sensitivity, {
          ...{ budget: { of, keep }, implant: 0, scope: "kind", rankBy: "score-per-cost" },
          ...{ floor: 0, wholeBranches: true, roundTo: 2 },
        });
        const pruned = applyDecisions(model, groups, plan.decisions);
        const held = [...pruned.parameters.values()]
          .filter(({ kind }) => kind !== "statistic")
          .reduce((sum, { data }) => sum + data.length, 0);
        expect([held, held]).toEqual([plan.after.parameters, sizeOfModel(pruned).parameters]);
        expect(plan.after[of]).toBeLessThanOrEqual(keep * plan.before[of]);
        const kept = componentGroups(pruned, "together");
        expect(countComponents(kept)).toBe(plan.after.components);
        const { parameters, statistics } = pruned.build(2, "training");
        expect([...parameters.keys()].sort()).toEqual([...pruned.parameters.keys()].sort());
        expect([...statistics.keys()].every((name) => pruned.parameters.has(name))).toBe(true);
      }
    }
  });

  test("pruned apart and with implants, it is rebuilt from its configuration and tensors", async () => {
    for (const coupling of ["together", "apart"] as const) {
      const { groups, decisions } = decide(coupling, 5);
      const pruned = applyDecisions(model, groups, decisions);
      const config = JSON.parse(JSON.stringify(pruned.config)) as ModelConfig;
      const source = { config, path: "x", tensors: pruned.parameters };
      const again = family.load(source, family.detect(source)!);
      expect(await logitsOf(again)).toEqual(await logitsOf(pruned));
      expect(sizeOfModel(pruned).parameters).toBeLessThan(sizeOfModel(model).parameters);
    }
  });

  test("compensated, in two rounds, it is closer to what it was", async () => {
    for (const coupling of ["together", "apart"] as const) {
      const samples = noiseSamples(model, 16);
      const options = { executor, batchSize: 16, random: new Random(0) };
      const cut = (of: Model, fresh: boolean) => {
        const groups = componentGroups(of, coupling);
        const decisions = new Map(
          groups.map(({ name, count, implantable, emptiable }, g) => [
            name,
            Array.from({ length: count }, (_, i): Decision => {
              if (emptiable && g === groups.length - 1) return "prune";
              if (i % 3 !== 1) return "keep";
              return fresh && implantable && i % 2 === 0 ? "implant" : "prune";
            }),
          ]),
        );
        return applyDecisions(of, groups, decisions);
      };
      const bare = cut(cut(model, true), false);
      const first = await compensate(model, cut(model, true), samples, options);
      const second = await compensate(first, cut(first, false), samples, options);
      expect(second.config).toEqual(bare.config);
      const dense = await logitsOf(model);
      const distance = async (of: Model) =>
        (await logitsOf(of)).reduce((sum, x, i) => sum + (x - dense[i]) ** 2, 0);
      expect(await distance(second)).toBeLessThan(0.5 * (await distance(bare)));
    }
  });

  test("an implant is smaller than what it replaces", () => {
    for (const { name, implantable, count } of componentGroups(model, "together")) {
      if (!implantable) continue;
      const groups = componentGroups(model, "together");
      const decisions = new Map([
        [name, Array<Decision>(count).fill("keep").fill("implant", 0, 1)],
      ]);
      const implanted = sizeOfModel(applyDecisions(model, groups, decisions));
      expect(implanted.parameters).toBeLessThan(sizeOfModel(model).parameters);
      expect(implanted.macs).toBeLessThan(sizeOfModel(model).macs);
    }
  });
});

describe("recognition from names and shapes alone", () => {
  const recognizedBy = (source: CheckpointSource) =>
    families.flatMap((family) => {
      const config = family.detect(source);
      return config === undefined ? [] : [{ family: family.name, config }];
    });
  const sourceOf = (family: ModelFamily, config: ModelConfig, rename = (name: string) => name) => ({
    config: undefined,
    path: "x",
    tensors: new Map(
      [...family.initialize(config, new Random(0)).parameters].map(([name, parameter]) => [
        rename(name),
        parameter,
      ]),
    ),
  });

  test.each(tiny.filter(([name]) => !name.includes("hidden neurons") && !name.includes("VGG")))(
    "%s, by one family alone",
    (_name, family, config) => {
      const [found, ...others] = recognizedBy(sourceOf(family, config));
      expect(others).toEqual([]);
      const source = sourceOf(family, config);
      const image = config.image;
      expect(() => family.load(source, { ...found.config, image } as ModelConfig)).not.toThrow();
    },
  );

  const torchvisionVgg = { conv_bias: true, last_pool: "max" as const };
  test.each([
    [
      "torchvision, with hidden neurons",
      vggConfig(16, { ...torchvisionVgg, classifier: [512, 512] }),
      "features.",
    ],
    [
      "torchvision, without batch norm",
      vggConfig(13, { ...torchvisionVgg, batch_norm: false }),
      "features.",
    ],
    ["network slimming", vggConfig(19), "feature."],
  ])("VGG as of %s", (_name, config, prefix) => {
    const narrow = { ...config, hidden_sizes: [8, 8, 16, 16, config.classifier[0] ?? 16] };
    const source = sourceOf(vgg, narrow, (name) => name.replace(/^features\./, prefix));
    expect(recognizedBy(source)).toEqual([{ family: "vgg", config: narrow }]);
    expect(() => vgg.load(source, narrow)).not.toThrow();
  });

  test("Hugging Face's ResNetForImageClassification, with its configuration", async () => {
    const config = resNetConfig(18, 3);
    const narrow = { ...config, embedding_size: 8, hidden_sizes: [8, 8, 12, 12] };
    const model = resNet.initialize(narrow, new Random(1));
    const renamed = (name: string) =>
      name
        .replace(/^conv1\./, "resnet.embedder.embedder.convolution.")
        .replace(/^bn1\./, "resnet.embedder.embedder.normalization.")
        .replace(/^layer(\d)\.(\d)\./, (_, s, b) => `resnet.encoder.stages.${s - 1}.layers.${b}.`)
        .replace(/\.conv(\d)\./, (_, i) => `.layer.${i - 1}.convolution.`)
        .replace(/\.bn(\d)\./, (_, i) => `.layer.${i - 1}.normalization.`)
        .replace(".downsample.0.", ".shortcut.convolution.")
        .replace(".downsample.1.", ".shortcut.normalization.")
        .replace(/^fc\./, "classifier.1.");
    const tensors = new Map([...model.parameters].map(([name, data]) => [renamed(name), data]));
    tensors.set("resnet.embedder.embedder.normalization.num_batches_tracked", {
      shape: [],
      data: new Float32Array(1),
      kind: "statistic",
    });
    // As in the files of microsoft/resnet-18.
    const theirs = {
      architectures: ["ResNetForImageClassification"],
      depths: [2, 2, 2, 2],
      downsample_in_first_stage: false,
      embedding_size: 8,
      hidden_act: "relu",
      hidden_sizes: [8, 8, 12, 12],
      id2label: { "0": "class 0", "1": "class 1", "2": "class 2" },
      label2id: { "class 0": 0, "class 1": 1, "class 2": 2 },
      layer_type: "basic",
      model_type: "resnet",
      num_channels: 3,
      torch_dtype: "float32",
    };
    const source = { config: theirs, path: "x", tensors };
    const loaded = resNet.load(source, resNet.detect(source)!);
    expect(loaded.classes).toEqual(["class 0", "class 1", "class 2"]);
    const expected = model.parameters.get("layer2.0.downsample.0.weight")!.data;
    expect(loaded.parameters.get("layer2.0.downsample.0.weight")!.data).toBe(expected);
    expect(recognizedBy({ ...source, config: undefined })).toEqual([
      { family: "resnet", config: narrow },
    ]);
  });
});

describe("fresh parameters", () => {
  test.each([
    // Variances: 2 / fan in, 2 / fan out, 2 / fan out.
    ["resnet20-cifar10", "layer3.0.conv2.weight", cifarResNet, 2 / (64 * 9)],
    ["preresnet29-cifar10", "layer2.0.conv3.weight", preResNet, 2 / 128],
    ["preresnet29-cifar10", "layer2.0.conv2.weight", preResNet, 2 / (64 * 9)],
    ["vgg16-bn-cifar10", "features.17.weight", vgg, 2 / (256 * 9)],
    ["vgg16-bn-cifar10", "classifier.weight", vgg, 2 / 512],
  ])("%s: %s", (preset, name, family, variance) => {
    const { data } = family.initialize(family.presets[preset], new Random(0)).parameters.get(name)!;
    const mean = data.reduce((sum, x) => sum + x, 0) / data.length;
    const measured = data.reduce((sum, x) => sum + (x - mean) ** 2, 0) / data.length;
    expect(Math.abs(mean)).toBeLessThan(4 * Math.sqrt(variance / data.length));
    expect(measured / variance).toBeGreaterThan(1 - 6 / Math.sqrt(data.length));
    expect(measured / variance).toBeLessThan(1 + 6 / Math.sqrt(data.length));
  });

  test("PreResNets begin with normalisations of one half, and PyTorch's linear layer", () => {
    const { parameters } = preResNet.initialize(preResNetConfig(29), new Random(0));
    expect(parameters.get("layer1.0.bn2.weight")!.data).toEqual(new Float32Array(64).fill(0.5));
    for (const name of ["fc.weight", "fc.bias"]) {
      const largest = Math.max(...parameters.get(name)!.data.map(Math.abs));
      expect(largest).toBeLessThanOrEqual(1 / 16);
      expect(largest).toBeGreaterThan(0.5 / 16);
    }
  });
});

describe("networks as HAP prunes them", () => {
  const [, , , [, , hiddenVgg], , [, , bottlenecks]] = tiny;
  const layersOf = (model: Model) =>
    componentGroups(model, "apart").map(({ name, count, implantable, rows }) => ({
      name,
      count,
      implantable,
      parameters: rows.map(({ parameter }) => parameter),
    }));

  test("the hidden layers of VGG's classifier lose neurons, with their biases and without implants", () => {
    const model = vgg.initialize(hiddenVgg, new Random(0));
    const layers = layersOf(model);
    expect(layers.filter(({ name }) => name.startsWith("classifier"))).toEqual(
      [9, 7].map((count, i) => ({
        name: `classifier.${3 * i}`,
        count,
        implantable: false,
        parameters: [`classifier.${3 * i}.weight`, `classifier.${3 * i}.bias`],
      })),
    );
    // Scores hold all that goes with a channel: its bias, too.
    expect(layers[0].parameters).toEqual(["features.0.weight", "features.0.bias"]);
  });

  test("a channel before the classifier takes all its positions along", () => {
    const model = vgg.initialize(hiddenVgg, new Random(0));
    const groups = componentGroups(model, "together");
    const { name, count } = groups.findLast((group) => group.name.startsWith("features"))!;
    const decisions = Array<Decision>(count).fill("keep").fill("prune", 1, 2);
    const pruned = applyDecisions(model, groups, new Map([[name, decisions]]));
    const columns = (of: Model) => of.parameters.get("classifier.0.weight")!.shape[1];
    // 64 pixels leave 2×2 positions.
    expect(columns(model) - columns(pruned)).toBe(4);
  });

  test.each([
    ["bottlenecks", resNet, bottlenecks],
    ["PreResNets", preResNet, { ...preResNetConfig(20, [6, 8, 10]), ...labels }],
  ] as const)("of %s the 3×3 convolutions alone take implants", (_name, family, config) => {
    const model = family.initialize(config as ModelConfig, new Random(0));
    for (const { parameters, implantable } of layersOf(model)) {
      const sides = parameters.map((name) => model.parameters.get(name)!.shape[2]);
      expect(implantable, parameters.join()).toBe(sides.some((side) => side > 1));
    }
    const groups = componentGroups(model, "apart");
    const decisions = new Map(
      groups.map(({ name, count }) => [
        name,
        Array<Decision>(count).fill("implant", 1).fill("keep", 0, 1),
      ]),
    );
    const implanted = applyDecisions(model, groups, decisions);
    for (const name of implanted.parameters.keys()) {
      if (!name.endsWith(".implant.weight")) continue;
      const whole = model.parameters.get(name.replace(".implant.", "."))!;
      expect(whole.shape[2], name).toBeGreaterThan(1);
    }
  });

  test("every preset is a network that can be built for any classes, and knows its name", () => {
    for (const family of families) {
      for (const [name, preset] of Object.entries(family.presets)) {
        expect(family.presetOf(preset)).toBe(name);
        const config = family.withClasses(preset, ["x", "y", "z"]);
        const none = { parameters: new Map(), config: JSON.parse(JSON.stringify(config)) };
        // Checked, built, and found to lack its first tensor.
        expect(() =>
          family.load({ config: none.config, path: name, tensors: none.parameters }, none.config),
        ).toThrow(/tensor \S+ is missing/);
        expect(family.withClasses(preset, ["x"]).num_labels).toBe(1);
      }
    }
  });

  test("networks for ImageNet take ImageNet's statistics, not Tiny-ImageNet's", () => {
    for (const family of [resNet, vgg]) {
      for (const [name, { image }] of Object.entries(family.presets)) {
        if (!name.endsWith("imagenet")) continue;
        expect(image).toMatchObject({ mean: [0.485, 0.456, 0.406], std: [0.229, 0.224, 0.225] });
      }
    }
  });

  test("the masks of network slimming are no parameters", () => {
    const config = { ...preResNetConfig(11, [4, 6, 8]), ...labels };
    const model = preResNet.initialize(config, new Random(0));
    const tensors = new Map(model.parameters);
    tensors.set("layer1.0.select.indexes", {
      shape: [4],
      kind: "weight",
      data: new Float32Array(4),
    });
    const loaded = preResNet.load({ config: undefined, path: "x", tensors }, config);
    expect(sizeOfModel(loaded)).toEqual(sizeOfModel(model));
  });
});

test("what a shortcut reads as it is, is not shifted by a normalisation beside it", () => {
  const model = preResNet.initialize(
    { ...preResNetConfig(20, [6, 8, 10]), ...labels },
    new Random(0),
  );
  const { fittable } = model.build(1, "evaluation");
  const shiftOf = (name: string) => fittable.get(`${name}.weight`)!.shift?.parameter;
  expect(shiftOf("conv1")).toBeUndefined();
  expect(shiftOf("layer2.0.downsample.0")).toBeUndefined();
  expect(shiftOf("layer1.0.conv1")).toBe("layer1.0.bn2.running_mean");
  // Where all branches of a block are gone but its projection, too.
  const groups = componentGroups(model, "apart");
  const emptied = groups.filter(({ name }) => /^layer2\.0\.conv[12]/.test(name));
  expect(emptied.length).toBeGreaterThan(0);
  const decisions = new Map(
    emptied.map(({ name, count }) => [name, new Array<"prune">(count).fill("prune")]),
  );
  const left = applyDecisions(model, groups, decisions).build(1, "evaluation");
  expect(left.fittable.get("layer2.0.downsample.0.weight")!.shift).toBeUndefined();
});
