import {
  defaultPruning,
  defaultSensitivity,
  defaultTextTuning,
  defaultTuning,
} from "@espalier/pipeline";
import { expect, test } from "vitest";
import { commandOf } from "./instructions.ts";
import type { PruneManifest, Settings } from "./read-run.ts";

const defaults = defaultPruning({ of: "macs", keep: 0.4 });

function manifestOf(changes: object): PruneManifest {
  return {
    command: "prune",
    source: "weights.pt",
    sha256: "",
    data: "cifar10",
    executor: "onnx:cpu",
    settings: JSON.parse(JSON.stringify({ ...defaults, ...changes })) as Settings,
    budget: { of: "macs", keep: 0.4 },
    rounds: 1,
    epochs: 0,
    calibration: 0,
    planGiven: false,
  };
}

test("says the budget and what is not as by default", () => {
  const settings = {
    seed: 7,
    plan: { ...defaults.plan, implant: 0.1, roundTo: 8, wholeBranches: false },
  };
  expect(commandOf("half", manifestOf(settings))).toBe(
    "espalier prune weights.pt --data cifar10 --keep-macs 0.4 --implant 0.1 --no-whole-branches --round-to 8 --seed 7 -o half-again",
  );
});

test("says a budget of latency, its batch, and a multiple that was asked for", () => {
  const latency = defaultPruning({ of: "latency", keep: 0.6 });
  const commandFor = (changes: object) => commandOf("fast", manifestOf({ ...latency, ...changes }));
  expect(commandFor({})).toBe(
    "espalier prune weights.pt --data cifar10 --keep-latency 0.6 -o fast-again",
  );
  expect(commandFor({ latencyBatch: 64, plan: { ...latency.plan, roundTo: 8 } })).toBe(
    "espalier prune weights.pt --data cifar10 --keep-latency 0.6 --round-to 8 --latency-batch 64 -o fast-again",
  );
});

test("says a learning rate that was asked for, though it is that of many steps", () => {
  const { fullFrom, ...schedule } = defaults.tune.schedule;
  expect(fullFrom).toBeGreaterThan(1);
  const tune = { ...defaults.tune, epochs: 1 };
  expect(commandOf("half", manifestOf({ tune }))).not.toContain("--learning-rate");
  expect(commandOf("half", manifestOf({ tune: { ...tune, schedule } }))).toContain(
    "--tune 1 --learning-rate 0.02 -o",
  );
});

test("quotes what a shell would take apart", () => {
  const manifest = { ...manifestOf({}), source: "it's here.pt", executor: "onnx:cuda" };
  expect(commandOf("a b", manifest)).toBe(
    "espalier prune 'it'\\''s here.pt' --data cifar10 --keep-macs 0.4 --device cuda -o 'a b-again'",
  );
});

test.each([
  ["onnx:cpu", ""],
  ["onnx:webgpu", " --device webgpu"],
  ["tfjs:wasm", " --device tfjs-wasm"],
  ["tfjs:cpu", " --device tfjs-cpu"],
])("says the device of %s as the command calls it", (executor, option) => {
  expect(commandOf("half", { ...manifestOf({}), executor })).toBe(
    `espalier prune weights.pt --data cifar10 --keep-macs 0.4${option} -o half-again`,
  );
});

test("says a temperature that is not the metric's own", () => {
  const command = (metric: string, temperature: number) =>
    commandOf(
      "half",
      manifestOf({ sensitivity: { ...defaults.sensitivity, metric, temperature } }),
    );
  expect(command("hessian-trace", 1)).toContain("--metric hessian-trace -o");
  expect(command("hessian-trace", 4)).toContain("--metric hessian-trace --temperature 4 -o");
  expect(command("removal", 1)).toContain("0.4 --temperature 1 -o");
});

test("names the plugins", () => {
  const manifest = { ...manifestOf({}), plugins: ["mobilenet-family", "./my family.js"] };
  expect(commandOf("half", manifest)).toBe(
    "espalier prune weights.pt --plugin mobilenet-family --plugin './my family.js' --data cifar10 --keep-macs 0.4 -o half-again",
  );
});

test("follows a plan that was given", () => {
  const manifest = { ...manifestOf({}), planGiven: true };
  expect(commandOf("half", manifest)).toContain("--plan half/plan.json");
  // The command refuses what the plan has decided.
  const { plan, sensitivity } = defaults;
  const decided = manifestOf({
    ...{ rounds: 2, plan: { ...plan, implant: 0.5 } },
    sensitivity: { ...sensitivity, samples: 8, coupling: "apart" },
  });
  expect(commandOf("half", { ...decided, planGiven: true })).toBe(
    "espalier prune weights.pt --data cifar10 --plan half/plan.json --coupling apart -o half-again",
  );
});

test("there is none for settings without an option", () => {
  const tune = { ...defaults.tune, optimizer: { ...defaults.tune.optimizer, momentum: 0.5 } };
  expect(commandOf("half", manifestOf({ tune }))).toBeUndefined();
});

test("of a sensitivity run", () => {
  const command = commandOf("scores", {
    ...{ command: "sensitivity", source: "weights.pt", sha256: "", data: "cifar10" },
    ...{
      executor: "onnx:cpu",
      settings: { ...defaultSensitivity, draws: 5 },
      seed: 1,
      batchSize: 32,
      holdOut: 8,
    },
  });
  expect(command).toBe(
    "espalier sensitivity weights.pt --data cifar10 --metric removal --estimator auto --temperature 4 --samples 512 --coupling together --draws 5 --hold-out 8 --seed 1 --batch-size 32 -o scores-again",
  );
});

test("names every kind of component that was asked for, and every layer that was not", () => {
  const selection = { kinds: ["head", "neuron"], keepLayers: ["layer1"] };
  const sensitivity = { ...defaults.sensitivity, ...selection };
  expect(commandOf("half", manifestOf({ sensitivity }))).toContain(
    " --kind head --kind neuron --keep-layer layer1 -o half-again",
  );
});

const trainCommand = (settings: object) =>
  commandOf("net", {
    ...{ command: "train", source: "resnet20-cifar10", data: "cifar10", executor: "onnx:cpu" },
    ...{ settings: { ...defaultTuning, ...settings }, epochs: 30, seed: 0 },
  });

test("of a training run", () => {
  const command = trainCommand({ epochs: 30 });
  expect(command).toMatch(/^espalier train resnet20-cifar10 --data cifar10 --epochs 30 /);
  expect(command).toMatch(/ --schedule cosine --learning-rate 0.02 /);
  expect(command).toMatch(/ --hold-out 5000 --seed 0 -o net-again$/);
});

test("of a training run by AdamW, with a clipped gradient", () => {
  const { optimizer } = defaultTextTuning;
  const adamW = { ...optimizer, weightDecay: 5e-4 };
  expect(trainCommand({ optimizer: adamW })).toContain(" --optimizer adamw --weight-decay 0.0005 ");
  expect(trainCommand({ clip: 1 })).toContain(" --clip 1 ");
  expect(trainCommand({ optimizer: { ...adamW, epsilon: 1 } })).toBeUndefined();
});

test("says how texts were tuned, before and after", () => {
  const tune = { ...defaultTextTuning, epochs: 2, distillation: 0.5 };
  const tuneDense = { ...tune, epochs: 3, distillation: 0 };
  expect(commandOf("half", manifestOf({ tune, tuneDense }))).toBe(
    "espalier prune weights.pt --data cifar10 --keep-macs 0.4 --tune 2 --distill 0.5 --tune-dense 3 -o half-again",
  );
  const apart = { ...tuneDense, batchSize: 16 };
  expect(commandOf("half", manifestOf({ tune, tuneDense: apart }))).toBeUndefined();
});
