/** @file What a run directory says: every file that is there, checked. */
import { existsSync } from "node:fs";
import { basename, join, resolve } from "node:path";
import { EspalierError, quote } from "@espalier/base";
import {
  type Budget,
  type ComponentGroup,
  type Decision,
  metrics,
  type PlanOptions,
  rankings,
  scopes,
} from "@espalier/core";
import {
  type BudgetPlan,
  type BudgetsRecord,
  COMPACT,
  decodeDecisions,
  FINAL_MODEL,
  type GroupPlan,
  type GroupRecord,
  type Latency,
  type LatencyPromise,
  type LatencyRecord,
  MANIFEST,
  OWN_CONFIG,
  type PlanRecord,
  type PruneResult,
  PYTORCH,
  readModelConfig,
  type SensitivityRecord,
  type SizeRecord,
} from "@espalier/pipeline";
import {
  anything,
  between,
  boolean,
  count,
  type Decoder,
  decode,
  list,
  nullable,
  number,
  object,
  oneOf,
  optional,
  pair,
  positive,
  readDecoded,
  record,
  string,
} from "./decode.ts";

/** A tree of settings, as `run.json` has it. */
export type Settings = Readonly<Record<string, unknown>>;

interface CommonManifest {
  /** Where model families come from that are not Espalier's own. */
  readonly plugins?: readonly string[] | undefined;
  /** Of models from the Hub: OWNER/NAME@COMMIT. */
  readonly hub?: string | undefined;
  readonly data: string;
  /** Whether the data are those that were published, where that can be told. */
  readonly verified?: boolean | undefined;
  readonly executor: string;
  readonly settings: Settings;
}

export interface PruneManifest extends CommonManifest {
  readonly command: "prune";
  readonly source: string;
  readonly sha256: string;
  /** Settings that the page speaks of. */
  readonly budget: Budget;
  readonly rounds: number;
  readonly epochs: number;
  readonly calibration: number;
  /** Whether a plan was given rather than made. */
  readonly planGiven: boolean;
}

export interface SensitivityManifest extends CommonManifest {
  readonly command: "sensitivity";
  readonly source: string;
  readonly sha256: string;
  readonly seed: number;
  readonly batchSize: number;
  /** Runs of earlier versions held out nothing, and do not say so. */
  readonly holdOut?: number | undefined;
}

export interface TrainManifest extends CommonManifest {
  readonly command: "train";
  /** A ready-made network, or the model that was trained further. */
  readonly source: string;
  /** Of the model that was trained further; a network from scratch has none. */
  readonly sha256?: string | undefined;
  readonly epochs: number;
  readonly seed: number;
}

export type RunManifest = PruneManifest | SensitivityManifest | TrainManifest;

/** What pruning has left, as the `config.json` of a model says it. */
export interface Pruning {
  /** The channels of the dense network that each layer still has. */
  readonly channels: ReadonlyMap<string, readonly number[]>;
  /** How many of them, the last ones, are implants. */
  readonly implants: ReadonlyMap<string, number>;
}

/** The `config.json` of a model, as far as it means the same for all families. */
export interface ModelDescription {
  readonly type: string;
  /** Single values that tell it from others of its family, such as its depth. */
  readonly details: readonly (readonly [string, string | number])[];
  readonly classes: readonly string[];
  readonly image:
    | {
        readonly shape: readonly number[];
        readonly mean: readonly number[];
        readonly std: readonly number[];
      }
    | undefined;
  /** How many tokens a model of texts knows. */
  readonly vocabulary: number | undefined;
  readonly pruning: Pruning | undefined;
}

export interface Round {
  /** The groups of the model before the round. */
  readonly groups: readonly ComponentGroup[];
  readonly sensitivity: SensitivityRecord | undefined;
  readonly plan: PlanRecord | undefined;
  /** For every component of every group. */
  readonly decisions: ReadonlyMap<string, readonly Decision[]> | undefined;
}

export type EpochRecord = PruneResult["history"][number];
export type EvaluationRecord = PruneResult["evaluation"];
export type Evaluation = EvaluationRecord["dense"];

export interface Run {
  /** The last part of the directory's path. */
  readonly name: string;
  readonly manifest: RunManifest;
  /** The first round, and those after it that have begun. */
  readonly rounds: readonly Round[];
  /** What other budgets would do to the components of the only round. */
  readonly budgets: readonly BudgetPlan[];
  /** Of the dense model, where it was trained for the task before it was pruned. */
  readonly denseTraining: readonly EpochRecord[] | undefined;
  readonly training: readonly EpochRecord[] | undefined;
  /** Of a training run: the model trained. */
  readonly trained: Evaluation | undefined;
  readonly evaluation: EvaluationRecord | undefined;
  readonly sizes: { readonly dense: SizeRecord; readonly pruned: SizeRecord } | undefined;
  readonly latency: LatencyRecord | undefined;
  /** The final model, or the pruned one before tuning. */
  readonly model: ModelDescription | undefined;
  /** The model as it was before the run. */
  readonly dense: ModelDescription | undefined;
  /** Whether the run has the file or directory of that name. */
  has(name: string): boolean;
}

const commonManifest = object<CommonManifest & { command: RunManifest["command"] }>({
  command: oneOf(["prune", "sensitivity", "train"]),
  plugins: optional(list(string)),
  hub: optional(string),
  data: string,
  verified: optional(boolean),
  executor: string,
  settings: anything,
});

const budget = object<Budget>({
  of: oneOf(["components", "parameters", "macs", "latency"]),
  keep: number,
});

const pruneManifest = object<{
  source: string;
  sha256: string;
  settings: {
    plan: { budget: Budget };
    rounds: number;
    calibration: number;
    tune: { epochs: number };
  };
  plan?: Settings | undefined;
}>({
  source: string,
  sha256: string,
  settings: object({
    plan: object({ budget }),
    rounds: count,
    calibration: count,
    tune: object({ epochs: count }),
  }),
  plan: optional(anything),
});

const sensitivityManifest = object<
  Pick<SensitivityManifest, "source" | "sha256" | "seed" | "batchSize" | "holdOut">
>({ source: string, sha256: string, seed: count, batchSize: count, holdOut: optional(count) });

const trainManifest = object<{
  source: string;
  sha256: string | undefined;
  settings: { epochs: number };
  seed: number;
}>({
  source: string,
  sha256: optional(string),
  settings: object({ epochs: count }),
  seed: count,
});

const manifest: Decoder<RunManifest> = (value, at) => {
  const { command, ...common } = commonManifest(value, at);
  if (command === "sensitivity") {
    return { command, ...sensitivityManifest(value, at), ...common };
  }
  if (command === "train") {
    const { source, sha256, seed, settings } = trainManifest(value, at);
    return { command, source, sha256, seed, epochs: settings.epochs, ...common };
  }
  const { source, sha256, plan, settings } = pruneManifest(value, at);
  const { calibration, tune } = settings;
  return {
    command: "prune",
    source,
    sha256,
    planGiven: plan !== undefined,
    budget: settings.plan.budget,
    // A plan that was given is followed in one step.
    rounds: plan === undefined ? Math.max(1, settings.rounds) : 1,
    calibration,
    epochs: tune.epochs,
    ...common,
  };
};

const group = object<GroupRecord>({
  name: string,
  kind: oneOf(["channel", "head", "neuron"]),
  count: positive,
  span: optional(count),
  rows: list(object({ parameter: string, indices: list(count) })),
  implantable: boolean,
  implants: boolean,
  emptiable: boolean,
  scores: list(number),
  standardErrors: list(nullable(number)),
});

const sensitivity = object<SensitivityRecord>({
  metric: oneOf(metrics),
  estimator: optional(oneOf(["exact", "probe", "hutchinson", "control-variate"])),
  temperature: number,
  coupling: oneOf(["together", "apart"]),
  samples: count,
  draws: count,
  groups: list(group),
  negative: count,
  rankStability: number,
});

const plannedSize = { parameters: count, macs: count, latency: optional(number) };
const sizeAfter = object<PlanRecord["after"]>({
  ...plannedSize,
  components: count,
  implants: count,
});

const plan = object<PlanRecord>({
  metric: oneOf(metrics),
  options: object<PlanOptions>({
    budget,
    implant: number,
    implantRank: optional(count),
    scope: oneOf(scopes),
    rankBy: oneOf(rankings),
    floor: number,
    wholeBranches: boolean,
    roundTo: number,
  }),
  before: object({ ...plannedSize, components: count }),
  after: sizeAfter,
  latency: optional(
    object<LatencyPromise>({
      batch: count,
      multiple: count,
      keep: number,
      tolerance: number,
      attempts: list(object({ target: number, predicted: number, measured: number })),
      chosen: count,
    }),
  ),
  groups: record(
    object<GroupPlan>({
      layers: list(string),
      components: positive,
      implant: list(count),
      implantRank: optional(count),
      prune: list(count),
    }),
  ),
});

const budgets = object<BudgetsRecord>({
  budgets: list(object({ keep: number, after: sizeAfter, groups: record(list(count)) })),
});

const training = list(
  object<EpochRecord>({
    epoch: count,
    learningRate: number,
    loss: number,
    trainAccuracy: number,
    validationAccuracy: optional(number),
    testAccuracy: optional(number),
  }),
);

/** Of models judged by an accuracy or, if they predict a number, by a correlation. */
function evaluationOf(model: ModelDescription | undefined): Decoder<Evaluation> {
  return object<Evaluation>({
    count: positive,
    accuracy: predictsNumber(model) ? between(-1, 1) : between(0, 1),
    loss: number,
    measures: optional(record(number)),
  });
}

function evaluationsOf(model: ModelDescription | undefined): Decoder<EvaluationRecord> {
  const evaluation = evaluationOf(model);
  return object({ data: string, dense: evaluation, pruned: evaluation, tuned: evaluation });
}

const size = object<SizeRecord>({
  parameters: positive,
  macs: positive,
  checkpointBytes: positive,
  onnxBytes: positive,
});

const latency = object<Latency>({ median: number, quartiles: pair(number), runs: count });

const latencies = object<LatencyRecord>({
  executor: string,
  machine: object({ processor: string, threads: count, runtime: string }),
  batches: record(object({ dense: latency, pruned: latency })),
});

const channelsLeft = object<{
  channels: Record<string, number[]>;
  implants?: Record<string, number>;
}>({ channels: record(list(count)), implants: optional(record(count)) });

// Of layers whose rows are no channels, plans say what is left.
const pruning: Decoder<Pruning | undefined> = (value, at) => {
  if (!Object.hasOwn(anything(value, at), "channels")) return undefined;
  const { channels, implants = {} } = channelsLeft(value, at);
  return {
    channels: new Map(Object.entries(channels)),
    implants: new Map(Object.entries(implants)),
  };
};

const modelFields = object<{
  model_type: string;
  id2label?: Record<string, string> | undefined;
  image?: { shape: number[]; mean: number[]; std: number[] } | undefined;
  vocab_size?: number | undefined;
  pruning?: Pruning | undefined;
}>({
  model_type: string,
  id2label: optional(record(string)),
  image: optional(object({ shape: list(count), mean: list(number), std: list(number) })),
  vocab_size: optional(count),
  pruning: optional(pruning),
});

const model: Decoder<ModelDescription> = (value, at) => {
  const { model_type: type, id2label = {}, image, vocab_size, pruning } = modelFields(value, at);
  const details = Object.entries(anything(value, at)).filter(
    (entry): entry is [string, string | number] =>
      entry[0] !== "model_type" && ["string", "number"].includes(typeof entry[1]),
  );
  return {
    type,
    details,
    classes: Object.entries(id2label)
      .sort(([a], [b]) => Number(a) - Number(b))
      .map(([, label]) => label),
    image,
    vocabulary: vocab_size,
    pruning,
  };
};

/** Whether a model predicts a number rather than classes. */
export function predictsNumber(
  model: Pick<ModelDescription, "classes" | "details"> | undefined,
): boolean {
  if (model === undefined) return false;
  return (
    model.classes.length === 1 ||
    model.details.some(
      ([key, value]) =>
        (key === "problem_type" && value === "regression") || (key === "num_labels" && value === 1),
    )
  );
}

/**
 * The model of an exported directory, as the configuration in it says.
 *
 * @throws EspalierError naming the file and the field that is malformed.
 */
export async function readExportedModel(directory: string): Promise<ModelDescription> {
  return decode(await readModelConfig(directory), directory, model);
}

/** For whom the files of an exported directory are. */
export interface ExportLayout {
  /** Whether `model.safetensors` is what Python's Transformers loads by `config.json`. */
  readonly stock: boolean;
  /** Whether the pruned model is beside it, in a directory of its own. */
  readonly compact: boolean;
  /** The PyTorch module, relative to the directory; exports of earlier versions have none. */
  readonly pytorch: string | undefined;
}

/** @throws EspalierError `missing-file` or `invalid-file`. */
export async function readExportLayout(directory: string): Promise<ExportLayout> {
  const config = await readDecoded(join(directory, "config.json"), anything);
  const compact = existsSync(join(directory, COMPACT));
  const pytorch = compact ? `${COMPACT}/${PYTORCH}` : PYTORCH;
  return {
    stock: !Object.hasOwn(config, OWN_CONFIG),
    compact,
    pytorch: existsSync(join(directory, pytorch)) ? pytorch : undefined,
  };
}

/** Reads the run in `directory`. @throws EspalierError naming the file that is malformed. */
export async function readRun(directory: string): Promise<Run> {
  const path = (name: string) => join(directory, name);
  const has = (name: string) => existsSync(path(name));
  const read = async <T>(name: string, decoder: Decoder<T>): Promise<T | undefined> =>
    has(name) ? readDecoded(path(name), decoder) : undefined;

  const asked = await readDecoded(path(MANIFEST), manifest);
  const total = asked.command === "prune" ? asked.rounds : 1;
  const readNext = (round: number) => readRound(read, path, total === 1 ? "" : `rounds/${round}/`);
  const rounds = [await readNext(1)];
  while (rounds.length < total && rounds[rounds.length - 1].plan !== undefined) {
    rounds.push(await readNext(rounds.length + 1));
  }
  const other = total === 1 ? await read("budgets.json", budgets) : undefined;
  if (other !== undefined) checkBudgets(other, rounds[0].groups, path("budgets.json"));
  const trains = asked.command === "train";
  const made =
    (await read(`${FINAL_MODEL}/config.json`, model)) ?? (await read("pruned/config.json", model));
  return {
    name: basename(resolve(directory)),
    manifest: asked,
    rounds,
    budgets: other?.budgets ?? [],
    denseTraining: await read("dense-training.json", training),
    training: await read("training.json", training),
    trained: trains ? await read("evaluation.json", evaluationOf(made)) : undefined,
    evaluation: trains ? undefined : await read("evaluation.json", evaluationsOf(made)),
    sizes: await read("sizes.json", object({ dense: size, pruned: size })),
    latency: await read("latency.json", latencies),
    model: made,
    dense:
      asked.command === "train"
        ? undefined
        : (await read(MANIFEST, object({ model: optional(model) })))?.model,
    has,
  };
}

async function readRound(
  read: <T>(name: string, decoder: Decoder<T>) => Promise<T | undefined>,
  path: (name: string) => string,
  prefix: string,
): Promise<Round> {
  const scored = await read(`${prefix}sensitivity.json`, sensitivity);
  const planPath = path(`${prefix}plan.json`);
  const made = await read(`${prefix}plan.json`, plan);
  if (scored !== undefined) checkLengths(scored, path(`${prefix}sensitivity.json`));
  const groups = scored?.groups ?? (made === undefined ? [] : groupsOf(made, planPath));
  return {
    groups,
    sensitivity: scored,
    plan: made,
    decisions: made && decodeDecisions(made, groups, planPath),
  };
}

function checkLengths({ groups }: SensitivityRecord, path: string): void {
  for (const { name, count, scores, standardErrors, rows } of groups) {
    const lengths = [scores, standardErrors, ...rows.map(({ indices }) => indices)];
    const wrong = lengths.find(({ length }) => length !== count);
    if (wrong === undefined) continue;
    throw new EspalierError(
      "invalid-file",
      `${path}: group ${quote(name)}: expected ${count} numbers in each list, got ${wrong.length}`,
      { path, group: name },
    );
  }
}

function checkBudgets({ budgets }: BudgetsRecord, groups: readonly ComponentGroup[], path: string) {
  for (const [i, budget] of budgets.entries()) {
    for (const { name, count } of groups) {
      const runs = Object.hasOwn(budget.groups, name) ? budget.groups[name] : [];
      const total = runs.reduce((sum, length) => sum + length, 0);
      if (total === count) continue;
      throw new EspalierError(
        "invalid-file",
        `${path}: budgets[${i}]: group ${quote(name)}: expected decisions on ${count} components, got ${total}`,
        { path, group: name },
      );
    }
  }
}

// Large transformers have less than a tenth of it.
const MOST_ROWS = 2 ** 22;

/**
 * The groups of a plan that was not made from scores, as far as it tells.
 *
 * @throws EspalierError `invalid-file` where there is more of them than any network has: such a plan says
 *   how many components there are, but does not list them.
 */
function groupsOf({ groups }: PlanRecord, path: string): ComponentGroup[] {
  let total = 0;
  return Object.entries(groups).map(([name, { layers, components }]) => {
    total += components * Math.max(1, layers.length);
    if (total > MOST_ROWS) {
      throw new EspalierError(
        "invalid-file",
        `${path}: group ${quote(name)}: expected at most ${MOST_ROWS} rows of layers up to here, got ${total}`,
        { path, group: name },
      );
    }
    const indices = Array.from({ length: components }, (_, i) => i);
    return {
      name,
      kind: "channel",
      count: components,
      rows: layers.map((parameter) => ({ parameter, indices })),
      implantable: true,
      implants: false,
      emptiable: true,
    };
  });
}
