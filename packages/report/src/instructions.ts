/** @file What to type: the command that repeats a run, the code that runs its model. */
import { isDeepStrictEqual } from "node:util";
import type { Budget, Metric } from "@espalier/core";
import {
  defaultPruning,
  defaultTemperatures,
  defaultTextTuning,
  defaultTuning,
} from "@espalier/pipeline";
import type { PruneManifest, RunManifest, Settings, TrainManifest } from "./read-run.ts";
import type { Summary } from "./summary.ts";

/** Leaves of a tree of settings, by their paths, such as "plan.budget.keep". */
export function flattenSettings(settings: Settings, prefix = ""): Map<string, unknown> {
  return new Map(
    Object.entries(settings).flatMap(([key, value]) =>
      typeof value === "object" && value !== null && !Array.isArray(value)
        ? [...flattenSettings(value as Settings, `${prefix}${key}.`)]
        : [[`${prefix}${key}`, value]],
    ),
  );
}

// Options of the command `espalier`, by what they set.
const sensitivityOptions = {
  metric: "--metric",
  estimator: "--estimator",
  draws: "--draws",
  temperature: "--temperature",
  samples: "--samples",
  coupling: "--coupling",
  kinds: "--kind",
  keepLayers: "--keep-layer",
};

const pruneOptions: Readonly<Record<string, string>> = {
  "plan.implant": "--implant",
  "plan.implantRank": "--implant-rank",
  "plan.scope": "--scope",
  "plan.rankBy": "--rank",
  "plan.floor": "--floor",
  "plan.wholeBranches": "--no-whole-branches",
  "plan.roundTo": "--round-to",
  latencyBatch: "--latency-batch",
  rounds: "--rounds",
  implantStart: "--implant-start",
  compensation: "--compensation",
  calibration: "--calibration",
  "tune.epochs": "--tune",
  "tuneDense.epochs": "--tune-dense",
  "tune.batchSize": "--tune-batch-size",
  "tune.optimizer.weightDecay": "--weight-decay",
  "tune.schedule.peak": "--learning-rate",
  "tune.labelSmoothing": "--label-smoothing",
  "tune.distillation": "--distill",
  "tune.hiddenDistillation": "--distill-hidden",
  "tune.validation": "--hold-out",
  seed: "--seed",
  batchSize: "--batch-size",
  ...prefixed("sensitivity.", sensitivityOptions),
};

const trainOptions: Readonly<Record<string, string>> = {
  epochs: "--epochs",
  "schedule.peak": "--learning-rate",
  "schedule.name": "--schedule",
  "schedule.warmup": "--warmup",
  batchSize: "--train-batch-size",
  "optimizer.name": "--optimizer",
  "optimizer.weightDecay": "--weight-decay",
  clip: "--clip",
  labelSmoothing: "--label-smoothing",
  validation: "--hold-out",
};

const budgetOptions: Readonly<Record<Budget["of"], string>> = {
  components: "--keep-components",
  parameters: "--keep-params",
  macs: "--keep-macs",
  latency: "--keep-latency",
};

function prefixed(prefix: string, options: Readonly<Record<string, string>>) {
  return Object.fromEntries(Object.entries(options).map(([key, option]) => [prefix + key, option]));
}

/**
 * The command line that repeats a run, its words quoted for a POSIX shell.
 *
 * @param source How the command is to name the checkpoint.
 * @returns undefined if the run had settings that the command has no option for.
 */
export function commandOf(run: string, manifest: RunManifest, source?: string): string | undefined {
  const options = optionsOf(run, manifest);
  if (options === undefined) return undefined;
  const words = [
    "espalier",
    manifest.command,
    source ?? manifest.source,
    ...(manifest.plugins ?? []).flatMap((plugin) => ["--plugin", plugin]),
    "--data",
    manifest.data,
    ...options,
  ];
  // Executors are named after a runtime and a device, such as "onnx:cpu" and "tfjs:wasm".
  const [runtime, place = "cpu"] = manifest.executor.split(":");
  const device = runtime === "tfjs" ? `tfjs-${place}` : place;
  if (device !== "cpu") words.push("--device", device);
  return [...words, "-o", `${run}-again`].map(quoteWord).join(" ");
}

function optionsOf(run: string, manifest: RunManifest): string[] | undefined {
  switch (manifest.command) {
    case "prune":
      return pruneOptionsOf(run, manifest);
    case "sensitivity": {
      const { settings, seed, batchSize, holdOut } = manifest;
      // Earlier versions drew other samples.
      if (holdOut === undefined) return undefined;
      const given = select(new Map(Object.entries(settings)), sensitivityOptions);
      const others = { "--hold-out": holdOut, "--seed": seed, "--batch-size": batchSize };
      return given && [...given, ...Object.entries(others).flat().map(String)];
    }
    case "train":
      return trainOptionsOf(manifest);
  }
}

function pruneOptionsOf(run: string, manifest: PruneManifest): string[] | undefined {
  const settings = flattenSettings(manifest.settings);
  const of = settings.get("plan.budget.of") as Budget["of"];
  const keep = Number(settings.get("plan.budget.keep"));
  const begin = manifest.planGiven
    ? ["--plan", `${run}/plan.json`]
    : [budgetOptions[of], String(keep)];
  // What is as by default need not be said.
  const usual = tuningBy(settings.get("tune.optimizer.name"));
  const defaults = flattenSettings({
    ...defaultPruning({ of, keep }),
    ...(usual && { tune: usual }),
  });
  // One option says how long; all else is as in the tuning after pruning, without a teacher.
  for (const [path, value] of settings) {
    if (!path.startsWith("tuneDense.") || path === "tuneDense.epochs") continue;
    const same = path.replace("tuneDense.", "tune.");
    const expected = same === "tune.distillation" ? 0 : settings.get(same);
    if (isDeepStrictEqual(value, expected)) settings.delete(path);
  }
  // A rate that was asked for does not depend on how many steps there are; the usual one does.
  const fullFrom = "tune.schedule.fullFrom";
  if (defaults.has(fullFrom) && !settings.has(fullFrom)) defaults.delete("tune.schedule.peak");
  const metric = settings.get("sensitivity.metric") as Metric;
  defaults.set("sensitivity.temperature", defaultTemperatures[metric]);
  for (const [path, value] of defaults) {
    if (isDeepStrictEqual(settings.get(path), value)) settings.delete(path);
  }
  if (manifest.planGiven) {
    // The plan has what these decide.
    for (const path of [...settings.keys()]) {
      if (path !== "sensitivity.coupling" && /^(plan\.|rounds$|sensitivity\.)/.test(path)) {
        settings.delete(path);
      }
    }
  }
  const rest = select(settings, pruneOptions);
  return rest && [...begin, ...rest];
}

/** Images and texts are tuned by optimisers of their own. */
function tuningBy(name: unknown) {
  return [defaultTuning, defaultTextTuning].find(({ optimizer }) => optimizer.name === name);
}

function trainOptionsOf({ settings, seed }: TrainManifest): string[] | undefined {
  const given = flattenSettings(settings);
  const { optimizer } = tuningBy(given.get("optimizer.name")) ?? defaultTuning;
  for (const [path, value] of flattenSettings({ ...defaultTuning, optimizer })) {
    // Defaults of training differ from those of tuning, so what has an option is said.
    if (Object.hasOwn(trainOptions, path)) continue;
    if (isDeepStrictEqual(given.get(path), value)) given.delete(path);
  }
  const options = select(given, trainOptions);
  return options && [...options, "--seed", String(seed)];
}

/** The options for all of `settings`; undefined if there is none for one of them. */
function select(
  settings: ReadonlyMap<string, unknown>,
  options: Readonly<Record<string, string>>,
): string[] | undefined {
  const words: string[] = [];
  for (const [path, value] of settings) {
    if (!Object.hasOwn(options, path)) return undefined;
    // An option that is given once for each of a list.
    if (Array.isArray(value)) words.push(...value.flatMap((each) => [options[path], String(each)]));
    // An option that is a word alone says no.
    else if (typeof value !== "boolean") words.push(options[path], String(value));
    else if (!value) words.push(options[path]);
  }
  return words;
}

/** A word as a POSIX shell reads it. */
export function quoteWord(word: string): string {
  return /^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`;
}

/** What Transformers.js and model hubs call what `model` does; undefined where that is not known. */
export function taskOf(
  model: Summary["model"],
): "image-classification" | "text-classification" | undefined {
  if (model?.image !== undefined) return "image-classification";
  return model?.vocabulary === undefined ? undefined : "text-classification";
}

/** What the samples of `model` are, one of them. */
export function sampleName(model: Summary["model"]): "image" | "text" {
  return taskOf(model) === "text-classification" ? "text" : "image";
}

/** JavaScript that classifies an image or a text by an exported model. */
export function pipelineExample(task: ReturnType<typeof taskOf> = "image-classification"): string {
  const sample = task === "text-classification" ? "a text" : "image.png";
  return `import { pipeline } from "@huggingface/transformers";

// The name of the repository that these files are in, or their directory.
const classify = await pipeline("${task}", "OWNER/NAME", { dtype: "q8" });
console.log(await classify("${sample}"));`;
}

/** Python that classifies by an exported model which Python's Transformers knows. */
export function pythonExample(model: Summary["model"]): string {
  return `from transformers import pipeline

classify = pipeline("${taskOf(model)}", "OWNER/NAME")
print(classify("a text"))`;
}

/** Python that runs the module `path` of an exported directory. */
export function pytorchExample(model: Summary["model"], path: string): string {
  const texts = taskOf(model) === "text-classification";
  const shape = [1, ...(model?.image?.shape ?? [3, 32, 32])].join(", ");
  return `import sys

${texts ? "from transformers import AutoTokenizer" : "import torch"}

sys.path.insert(0, "${["DIRECTORY", ...path.split("/").slice(0, -1)].join("/")}")
from model import load

model = load()  # load().train() to train it
${
  texts
    ? `tokenizer = AutoTokenizer.from_pretrained("DIRECTORY")
logits = model(**tokenizer("a text", return_tensors="pt"))`
    : `pixel_values = torch.zeros(${shape})  # prepared as preprocessor_config.json says
logits = model(pixel_values)`
}`;
}

/** JavaScript that runs the exported model without a pipeline of Transformers.js. */
export function onnxExample({ model }: Pick<Summary, "model">): string {
  if (taskOf(model) === "text-classification") {
    return `import { AutoTokenizer } from "@huggingface/transformers";
import { InferenceSession, Tensor } from "onnxruntime-node";

const session = await InferenceSession.create("export/pruned/onnx/model.onnx");
const tokenizer = await AutoTokenizer.from_pretrained("export/pruned");
const encoded = tokenizer("a text");
const feeds = Object.fromEntries(
  session.inputNames.map((name) => [name, new Tensor("int64", encoded[name].data, encoded[name].dims)]),
);
const { logits } = await session.run(feeds);`;
  }
  const [channels, height, width] = model?.image?.shape ?? [3, 32, 32];
  const normalisation =
    model?.image === undefined
      ? ""
      : `
// Channel by channel, row by row: (value / 255 - mean) / std,
// mean ${model.image.mean.join(", ")}, std ${model.image.std.join(", ")}.`;
  return `import { InferenceSession, Tensor } from "onnxruntime-node";

const session = await InferenceSession.create("export/pruned/onnx/model.onnx");${normalisation}
const pixels = new Float32Array(${channels} * ${height} * ${width});
const image = new Tensor("float32", pixels, [1, ${channels}, ${height}, ${width}]);
const { logits } = await session.run({ pixel_values: image });`;
}
