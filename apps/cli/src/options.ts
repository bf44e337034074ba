/** @file Options that several commands share, and how their values are read. */

import { EspalierError } from "@espalier/base";
import {
  type ComponentKind,
  componentKinds,
  type EstimatorChoice,
  estimatorChoices,
  type Metric,
  type Model,
  metrics,
  type RankBy,
  rankings,
  type Scope,
  scopes,
  secondOrderMetrics,
} from "@espalier/core";
import {
  type Compensation,
  defaultPruning,
  defaultSensitivity,
  defaultTemperatures,
  defaultTuningOf,
  type ImplantStart,
  type PruneSettings,
  type SensitivitySettings,
  type TuneSettings,
} from "@espalier/pipeline";
import { Argument, type Command, InvalidArgumentError, Option } from "commander";

export function number(least: number, most: number, kind: string) {
  return (text: string): number => {
    const value = Number(text);
    if (text.trim() === "" || !(value >= least && value <= most)) {
      throw new InvalidArgumentError(`Expected ${kind}.`);
    }
    return value;
  };
}

export function integer(least: number) {
  return (text: string): number => {
    const value = Number(text);
    if (!/^\d+$/.test(text) || !Number.isSafeInteger(value) || value < least) {
      throw new InvalidArgumentError(`Expected a whole number from ${least} on.`);
    }
    return value;
  };
}

const byteUnits = { KB: 1e3, MB: 1e6, GB: 1e9, TB: 1e12 };

/** "1.5GB" in bytes. */
export function bytes(text: string): number {
  const [, value, unit] = /^(\d+(?:\.\d+)?) ?([kKMGT]B)$/.exec(text) ?? [];
  const count = Number(value) * byteUnits[unit?.toUpperCase() as keyof typeof byteUnits];
  if (!(count > 0)) throw new InvalidArgumentError("Expected a size such as 500MB or 2GB.");
  return count;
}

const share = number(0, 1, "a number from 0 to 1");
const positive = number(Number.MIN_VALUE, Number.MAX_VALUE, "a number above 0");

export const sourceArgument = new Argument(
  "<source>",
  "a saved model, a run, a checkpoint file, PRESET:FILE such as resnet56-cifar10:weights.pt, or OWNER/NAME[@REVISION] of the Hugging Face Hub",
);

/** What DATA may be, for helps. */
export const dataForms =
  "cifar10, cifar10:DIR, imagefolder:DIR, textfolder:DIR, glue/TASK or glue/TASK:DIR";

/** Options of every command that says how far it is. */
export function addOutputOptions(command: Command): Command {
  return command.addOption(formatOption()).option("--no-bars", "no progress bars");
}

/**
 * Options of every command that computes.
 *
 * @param everywhere Says that the command takes all devices unless one is given.
 */
export function addCommonOptions(command: Command, everywhere?: string): Command {
  const devices = "where to compute: cpu, webgpu, tfjs-wasm, …; `espalier env` lists what is there";
  const device =
    everywhere === undefined
      ? new Option("--device <name>", devices).default("cpu")
      : new Option("--device <name>", `${devices} (${everywhere})`);
  command
    .addOption(device)
    .option("--threads <n>", "threads to compute with (default: all cores)", integer(1))
    .option("--memory-limit <size>", "memory to compute in (default: half of the machine's)", bytes)
    .option("--seed <n>", "all randomness derives from it", integer(0), 0)
    .option("--batch-size <n>", "samples at a time; fewer where memory is short", integer(1));
  return addOutputOptions(command);
}

/** Options of every command that knows model families. */
export function addPluginOption(command: Command): Command {
  return command.option(
    "--plugin <package-or-file>",
    "adds the model families of a package or file, whose code is run; may be repeated",
    (plugin: string, before: readonly string[]) => [...before, plugin],
    [],
  );
}

export function formatOption(): Option {
  return new Option("--format <format>", "how results are written to standard output")
    .choices(["table", "json"])
    .default("table");
}

export function addRunOptions(command: Command): Command {
  return command
    .requiredOption("-o, --output <dir>", "the run directory")
    .option("--resume", "continue a run that was stopped", false)
    .option("--overwrite", "replace an earlier run", false);
}

/** The run that `options` ask to resume. */
export function resumedRun(options: {
  readonly output: string;
  readonly resume: boolean;
}): string | undefined {
  return options.resume ? options.output : undefined;
}

export interface SensitivityOptions {
  readonly metric: Metric;
  readonly estimator: EstimatorChoice;
  readonly draws?: number;
  readonly temperature?: number;
  readonly samples: number;
  readonly coupling: "together" | "apart";
  readonly kind?: readonly ComponentKind[];
  readonly keepLayer?: readonly string[];
}

export function addSensitivityOptions(command: Command): Command {
  const { metric, estimator, samples, coupling } = defaultSensitivity;
  return command
    .addOption(
      new Option("--metric <metric>", "what a component's score measures")
        .choices(metrics)
        .default(metric),
    )
    .addOption(
      new Option("--estimator <estimator>", "how second-order metrics are estimated")
        .choices(estimatorChoices)
        .default(estimator),
    )
    .option(
      "--draws <n>",
      "random probes of probe (default 3), hutchinson (300), control-variate (10)",
      integer(1),
    )
    .option(
      "--temperature <t>",
      `softens the seeds of second-order metrics (default: ${defaultTemperatures["hessian-trace"]} for hessian-trace, ${defaultTemperatures.removal} for others)`,
      positive,
    )
    .option("--samples <n>", "training samples to measure on", integer(1), samples)
    .addOption(
      new Option("--coupling <kind>", "whether residual branches lose channels together or apart")
        .choices(["together", "apart"])
        .default(coupling),
    )
    .addOption(
      new Option(
        "--kind <kind>",
        "prune components of this kind alone; may be repeated (default: all)",
      ).argParser((text: string, before: readonly ComponentKind[] = []) => [
        ...before,
        componentKind(text),
      ]),
    )
    .option(
      "--keep-layer <name>",
      "remove nothing of this layer, or of all whose names begin so, such as layer1; may be repeated",
      (name: string, before: readonly string[] = []) => [...before, name],
    );
}

function componentKind(text: string): ComponentKind {
  const kind = componentKinds.find((each) => each === text);
  if (kind !== undefined) return kind;
  throw new InvalidArgumentError(`Expected ${componentKinds.join(", ")}.`);
}

/** @throws EspalierError `invalid-argument` naming an option that the metric does not have. */
export function expectEstimated(options: SensitivityOptions): void {
  const { metric, estimator, draws, temperature = defaultTemperatures[metric] } = options;
  if (secondOrderMetrics.includes(metric)) return;
  const given = {
    estimator: estimator !== defaultSensitivity.estimator,
    draws: draws !== undefined,
    temperature: temperature !== defaultTemperatures[metric],
  };
  for (const [option, isGiven] of Object.entries(given)) {
    if (!isGiven) continue;
    throw new EspalierError(
      "invalid-argument",
      `--${option}: expected it with --metric ${secondOrderMetrics.join(", ")}, got it with ${metric}, which is not estimated`,
      { option, metric },
    );
  }
}

export function sensitivitySettings(options: SensitivityOptions): SensitivitySettings {
  const { metric, estimator, draws, samples, coupling, kind, keepLayer } = options;
  return {
    metric,
    estimator,
    ...(draws === undefined ? {} : { draws }),
    temperature: options.temperature ?? defaultTemperatures[metric],
    samples,
    coupling,
    ...(kind === undefined ? {} : { kinds: kind }),
    // In whichever order, they select the same.
    ...(keepLayer === undefined ? {} : { keepLayers: [...new Set(keepLayer)].sort() }),
  };
}

export interface PruneOptions extends SensitivityOptions {
  readonly keepParams?: number;
  readonly keepMacs?: number;
  readonly keepComponents?: number;
  readonly keepLatency?: number;
  readonly latencyBatch?: number;
  readonly implant: number;
  readonly implantRank?: number;
  readonly implantStart: ImplantStart;
  readonly compensation: Compensation;
  readonly rank: RankBy;
  readonly scope: Scope;
  readonly floor: number;
  readonly wholeBranches: boolean;
  readonly roundTo?: number;
  readonly rounds: number;
  readonly calibration: number;
  readonly tune: number;
  readonly tuneDense?: number;
  readonly learningRate?: number;
  readonly tuneBatchSize?: number;
  readonly weightDecay?: number;
  readonly labelSmoothing: number;
  readonly distill: number;
  readonly distillHidden: number;
  readonly holdOut?: number;
  readonly seed: number;
  readonly batchSize?: number;
}

const defaults = defaultPruning({ of: "macs", keep: 0.5 });

/** @param what Says what they are kept from. */
export function addHoldOutOption(command: Command, what: string): Command {
  return command.option(
    "--hold-out <n>",
    `training samples ${what}, at most half of them (default: 5000; texts: 500)`,
    integer(0),
  );
}

export function addPruneOptions(command: Command): Command {
  const { plan, rounds, implantStart, compensation, calibration, tune } = defaults;
  const planned = addSensitivityOptions(
    command
      .option("--keep-params <share>", "share of the parameters to keep", share)
      .option("--keep-macs <share>", "share of the multiply-accumulates to keep", share)
      .option("--keep-components <share>", "share of the components to keep", share)
      .option("--keep-latency <share>", "share of the time to keep, as measured here", share)
      .option(
        "--latency-batch <n>",
        "samples at a time for --keep-latency (default: 1)",
        integer(1),
      )
      .option("--implant <share>", "share of the others that become implants", share, plan.implant)
      .option(
        "--implant-rank <n>",
        "at which rank implants of attention heads attend (default: a quarter of a head's size)",
        integer(1),
      )
      .addOption(
        new Option(
          "--implant-start <kind>",
          "how implants begin; those of attention heads as factors that are fitted to samples, of the weights alone, or zero",
        )
          .choices(["least-squares", "centre-tap", "zero"])
          .default(implantStart),
      )
      .addOption(
        new Option("--compensation <kind>", "how layers make up for the channels they have lost")
          .choices(["least-squares", "none"])
          .default(compensation),
      )
      .addOption(
        new Option(
          "--rank <by>",
          "rank by the score alone, per cost that goes when its turn comes, or per cost in the whole network",
        )
          .choices(rankings)
          .default(plan.rankBy),
      )
      .addOption(
        new Option("--scope <scope>", "rank all components together, or within each kind or group")
          .choices(scopes)
          .default(plan.scope),
      )
      .option("--floor <share>", "what every group keeps at least", share, plan.floor)
      .option("--no-whole-branches", "never remove all channels of a layer")
      .option(
        "--round-to <n>",
        `round widths to a multiple (default: ${plan.roundTo}; for --keep-latency what pays here)`,
        integer(1),
      )
      .option("--rounds <n>", "reach the budget in steps", integer(1), rounds)
      .option(
        "--calibration <n>",
        "samples to fit weights and statistics on",
        integer(0),
        calibration,
      )
      .option("--plan <file>", "follow this plan instead of making one")
      .option(
        "--scores <run>",
        "take the scores of this run of prune or sensitivity, which has to have the same model, data, device, seed, samples held out and settings of scoring",
      ),
  )
    .option("--tune <epochs>", "epochs of tuning", integer(0), tune.epochs)
    .option(
      "--tune-dense <epochs>",
      "epochs of tuning before pruning; a model without a head gets one",
      integer(1),
    )
    .option(
      "--learning-rate <rate>",
      "peak learning rate of tuning (default: 0.02, less in proportion below 700 steps; texts: 5e-5)",
      positive,
    )
    .option(
      "--tune-batch-size <n>",
      "samples per step of tuning (default: 128; texts: 32)",
      integer(1),
    )
    .option(
      "--weight-decay <decay>",
      "of weights, while tuning (default: 5e-4; texts: 0.01)",
      share,
    )
    .option("--label-smoothing <share>", "while tuning", share, tune.labelSmoothing)
    .option(
      "--distill <share>",
      "share of the loss that asks for the dense outputs",
      share,
      tune.distillation,
    )
    .option(
      "--distill-hidden <share>",
      "share of the loss that asks for what the dense layers put out (texts)",
      share,
      0,
    );
  return addHoldOutOption(planned, "held out to watch tuning");
}

/**
 * @throws EspalierError `invalid-argument` unless exactly one budget is given, or with a batch size for
 *   latency where the budget is another.
 */
export function expectBudget(options: PruneOptions): void {
  const given = budgetsOf(options);
  if (given.length !== 1) {
    throw new EspalierError(
      "invalid-argument",
      `expected one of --keep-params, --keep-macs, --keep-components and --keep-latency, got ${given.length === 0 ? "none" : given.length}`,
    );
  }
  if (options.latencyBatch !== undefined && given[0]?.of !== "latency") {
    throw new EspalierError(
      "invalid-argument",
      "--latency-batch: expected it with --keep-latency, got another budget",
    );
  }
}

// Options whose work a plan has done, as commander names them.
const planning = [
  ...["keepParams", "keepMacs", "keepComponents", "keepLatency", "latencyBatch", "rounds"],
  ...["implant", "implantRank", "rank", "scope", "floor", "wholeBranches", "roundTo"],
  ...["metric", "estimator", "draws", "temperature", "samples", "kind", "keepLayer", "scores"],
];

// Options that only a training reads.
const tuning = [
  ...["learningRate", "tuneBatchSize", "weightDecay", "labelSmoothing"],
  ...["distill", "distillHidden"],
];

/** @throws EspalierError `invalid-argument` naming an option of tuning where there is none. */
export function expectTuning(command: Command, { tune, tuneDense }: PruneOptions): void {
  if (tune > 0) return;
  const unused = command.options.find((option) => {
    const name = option.attributeName();
    const isRead = tuneDense !== undefined && !name.startsWith("distill");
    return tuning.includes(name) && !isRead && command.getOptionValueSource(name) === "cli";
  });
  if (unused === undefined) return;
  throw new EspalierError(
    "invalid-argument",
    `${unused.long}: expected it with --tune, got it for a model that is not tuned`,
    { option: unused.long },
  );
}

/** @throws EspalierError `invalid-argument` naming an option that a plan which is given leaves unused. */
export function expectNoPlanning(command: Command): void {
  const unused = command.options.find((option) => {
    const name = option.attributeName();
    return planning.includes(name) && command.getOptionValueSource(name) === "cli";
  });
  if (unused === undefined) return;
  throw new EspalierError(
    "invalid-argument",
    `${unused.long}: expected it without --plan, which has everything decided, got both`,
    { option: unused.long },
  );
}

function budgetsOf(options: PruneOptions) {
  const budgets = [
    { of: "parameters", keep: options.keepParams },
    { of: "macs", keep: options.keepMacs },
    { of: "components", keep: options.keepComponents },
    { of: "latency", keep: options.keepLatency },
  ] as const;
  return budgets.filter(({ keep }) => keep !== undefined);
}

function withoutTeacher({ hiddenDistillation: _, ...tune }: TuneSettings): TuneSettings {
  return { ...tune, distillation: 0 };
}

/** `usual`, or with a rate that was asked for, which does not depend on how many steps there are. */
function scheduleOf(
  usual: TuneSettings["schedule"],
  peak: number | undefined,
): TuneSettings["schedule"] {
  if (peak === undefined) return usual;
  const { fullFrom: _, ...schedule } = usual;
  return { ...schedule, peak };
}

/** The settings that `options` ask for, to prune `model`. */
export function pruneSettings(options: PruneOptions, model: Model): PruneSettings {
  const { of, keep } = budgetsOf(options)[0] ?? { of: "macs", keep: 1 };
  const budget = { of, keep: keep! };
  const standard = defaultPruning(budget);
  const usual = defaultTuningOf(model);
  const tune = {
    ...usual,
    epochs: options.tune,
    batchSize: options.tuneBatchSize ?? usual.batchSize,
    optimizer: {
      ...usual.optimizer,
      weightDecay: options.weightDecay ?? usual.optimizer.weightDecay,
    },
    schedule: scheduleOf(usual.schedule, options.learningRate),
    labelSmoothing: options.labelSmoothing,
    distillation: options.distill,
    ...(options.distillHidden === 0 ? {} : { hiddenDistillation: options.distillHidden }),
    validation: options.holdOut ?? usual.validation,
  };
  const {
    implant,
    implantRank,
    scope,
    floor,
    wholeBranches,
    roundTo = standard.plan.roundTo,
  } = options;
  return {
    ...standard,
    ...(options.latencyBatch === undefined ? {} : { latencyBatch: options.latencyBatch }),
    sensitivity: sensitivitySettings(options),
    plan: {
      budget,
      implant,
      ...(implantRank === undefined ? {} : { implantRank }),
      scope,
      rankBy: options.rank,
      floor,
      wholeBranches,
      roundTo,
    },
    rounds: options.rounds,
    implantStart: options.implantStart,
    compensation: options.compensation,
    calibration: options.calibration,
    tune,
    ...(options.tuneDense === undefined
      ? {}
      : { tuneDense: { ...withoutTeacher(tune), epochs: options.tuneDense } }),
    seed: options.seed,
    ...(options.batchSize === undefined ? {} : { batchSize: options.batchSize }),
  };
}
