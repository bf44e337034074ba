/** @file From a model to a pruned, tuned, judged and exported one. */

import { stat } from "node:fs/promises";
import { join } from "node:path";
import { EspalierError, readBytes, readJson } from "@espalier/base";
import {
  type ComponentGroup,
  componentGroups,
  costOf,
  countComponents,
  describePlan,
  drawSamples,
  expectImplantRank,
  expectReachable,
  type Model,
  type ModelSize,
  makePlan,
  makePlans,
  type Plan,
  Random,
  type Samples,
  sizeOfModel,
} from "@espalier/core";
import {
  type EpochRecord,
  type Evaluation,
  evaluate,
  expectBatch,
  expectHidden,
  expectSmoothing,
} from "@espalier/train";
import { applyPlan } from "./apply-plan.ts";
import type { Stage } from "./events.ts";
import { CALIBRATION_SAMPLES, exportModel, fileName, onnxFiles } from "./export.ts";
import { type Latency, type Machine, type Timing, timedBatches } from "./latency.ts";
import {
  keepLatency,
  type LatencyPromise,
  openLatencyTable,
  planByLatency,
} from "./latency-budget.ts";
import { LATENCY_TABLE, type LatencyTable, predictLatency } from "./latency-table.ts";
import { type PruningRecord, type PruningRound, pruningRound } from "./pruning-record.ts";
import {
  decodeDecisions,
  decodeSensitivity,
  encodeBudgets,
  encodePlan,
  type PlanRecord,
  type SensitivityRecord,
} from "./records.ts";
import type { RunContext } from "./run-context.ts";
import { DENSE_MODEL, FINAL_MODEL, type OpenRunOptions, RunDirectory } from "./run-directory.ts";
import { modelFiles, saveModel } from "./save-model.ts";
import { manifestOf, roundStream, sensitivityOf, takeScores } from "./score.ts";
import { budgetShares, type PruneSettings } from "./settings.ts";
import { type LoadedSource, loadSource, ownDirectory } from "./source.ts";
import type { Task } from "./task.ts";
import { CURVE, forTask, holdOut, trainInRun } from "./train-in-run.ts";

export interface PruneRequest extends OpenRunOptions {
  readonly source: LoadedSource;
  /** The source as it was asked for. */
  readonly sourceName: string;
  readonly settings: PruneSettings;
  readonly directory: string;
  /** A plan to follow instead of making one. */
  readonly plan?: { readonly record: PlanRecord; readonly path: string } | undefined;
  /** A run, as `takeScores` takes it, whose scores are not measured again. */
  readonly scores?: string | undefined;
  /** Without it nothing is timed, and budgets of latency cannot be met. */
  readonly timing?: Timing | undefined;
  /** Where tables of layer times are kept for other runs; none is kept without it. */
  readonly cacheDirectory?: string | undefined;
}

/** The three models of a run, judged on the whole test set. */
export interface EvaluationRecord {
  readonly data: string;
  readonly dense: Evaluation;
  readonly pruned: Evaluation;
  readonly tuned: Evaluation;
}

export interface SizeRecord extends ModelSize {
  /** Bytes of `model.safetensors` and `onnx/model.onnx`. */
  readonly checkpointBytes: number;
  readonly onnxBytes: number;
}

export interface LatencyRecord {
  readonly executor: string;
  readonly machine: Machine;
  /** For each batch size, milliseconds per batch. */
  readonly batches: Readonly<Record<string, { readonly dense: Latency; readonly pruned: Latency }>>;
}

export interface PruneResult {
  readonly directory: string;
  /** Of the last round. */
  readonly plan: PlanRecord;
  /** How many components the dense model had. */
  readonly components: number;
  readonly evaluation: EvaluationRecord;
  readonly sizes: { readonly dense: SizeRecord; readonly pruned: SizeRecord };
  readonly history: readonly EpochRecord[];
  readonly latency: LatencyRecord | undefined;
}

/** The model straight after it is pruned. */
const PRUNED_MODEL = "pruned";

const exportedOnnx = (name: string) => `export/${name}/${onnxFiles.fp32}`;

/**
 * Runs all stages in `directory`, skipping those whose files are there. Interrupted at any moment
 * and resumed, it ends in the same files, but for measured times.
 */
export async function prune(request: PruneRequest, context: RunContext): Promise<PruneResult> {
  const { source, settings } = request;
  const { task } = context;
  const random = new Random(settings.seed);
  const start = startOf(request, context, random);
  const manifest = {
    command: "prune",
    ...(await manifestOf(request, context)),
    settings,
    plan: request.plan?.record,
    // A promise of time is about one machine.
    machine: isByLatency(request) ? request.timing?.machine : undefined,
  };
  const scores =
    request.scores === undefined
      ? undefined
      : await takeScores(request.scores, manifest, start.groups);
  const inputs = [source.path, request.plan?.path, request.scores, task.directory];
  const run = await RunDirectory.open(
    request.directory,
    manifest,
    request,
    inputs.filter((path) => path !== undefined),
  );
  try {
    return await runStages(run, request, context, { ...start, scores }, random);
  } finally {
    await run.close();
  }
}

async function runStages(
  run: RunDirectory,
  request: PruneRequest,
  context: RunContext,
  start: Start,
  random: Random,
): Promise<PruneResult> {
  const { settings } = request;
  const { executor, task } = context;
  const { training, validation } = start;
  const dense = await prepareDense(run, request, context, start, random);

  const plan = await reduce(run, request, context, dense, start, random);
  const pruned = (await loadSource(run.file(PRUNED_MODEL), context.families)).model;
  const history = await tune(run, request, context, dense, pruned, training, validation, random);
  const tuned = (await loadSource(run.file(FINAL_MODEL), context.families)).model;

  const judgeAll = async (): Promise<EvaluationRecord> => {
    const test = task.test(dense);
    const judge = (subject: string, model: Model) =>
      evaluate(model, test, {
        executor,
        batchSize: settings.batchSize,
        measures: task.measures,
        classes: task.classesIn(model),
        signal: context.signal,
        onProgress: (done, total) =>
          context.onEvent?.({
            type: "progress",
            stage: "evaluate",
            unit: "samples",
            done,
            total,
            subject,
          }),
      });
    const judged = await judge("dense", dense);
    const straight = await judge("pruned", pruned);
    const tunedIsPruned = settings.tune.epochs === 0;
    return {
      data: task.name,
      dense: judged,
      pruned: straight,
      tuned: tunedIsPruned ? straight : await judge("tuned", tuned),
    };
  };
  const finalFiles = [...denseFiles(request), ...modelFiles(FINAL_MODEL)];
  const evaluation = await stage("evaluate", run, "evaluation.json", context, () =>
    run.json("evaluation.json", judgeAll, [...finalFiles, ...modelFiles(PRUNED_MODEL)]),
  );

  const exportBoth = async (path: string) => {
    const { signal, onEvent } = context;
    const options = { executor, metadata: metadataOf(request), signal, onEvent };
    const calibration = drawSamples(
      training,
      Math.min(settings.calibration, CALIBRATION_SAMPLES),
      random.stream("export"),
    );
    await exportModel(tuned, join(path, "pruned"), {
      ...options,
      calibration: calibration.count > 0 ? calibration : undefined,
      pruning: await recordPruning(run, request, task.name),
    });
    // To compare the other with.
    await exportModel(dense, join(path, "dense"), { ...options, precisions: ["fp32"] });
  };
  await stage("export", run, "export", context, () =>
    run.directory("export", exportBoth, finalFiles),
  );
  const exported = ["dense", "pruned"].map(exportedOnnx);
  const sizeBoth = async () => ({
    dense: await sizeRecord(dense, run.file("export/dense")),
    pruned: await sizeRecord(tuned, run.file("export/pruned")),
  });
  const sizes = await run.json("sizes.json", sizeBoth, exported);
  const { timing } = request;
  const latency =
    timing === undefined
      ? undefined
      : await stage("latency", run, "latency.json", context, () =>
          run.json(
            "latency.json",
            () => compareLatencies(run, executor.name, request, timing, context.signal),
            exported,
          ),
        );
  const components = countComponents(start.groups);
  return { directory: run.path, plan, components, evaluation, sizes, history, latency };
}

interface Start {
  readonly model: Model;
  readonly groups: readonly ComponentGroup[];
  readonly training: Samples;
  readonly validation: Samples | undefined;
  /** Those of the first round, if they are not to be measured. */
  readonly scores?: SensitivityRecord | undefined;
}

/**
 * What the run begins with, if it can.
 *
 * @throws EspalierError as `componentGroups` and `Task.train`, and for settings that do not fit.
 */
function startOf(request: PruneRequest, { task }: RunContext, random: Random): Start {
  const { settings, source } = request;
  const { sensitivity, tune, tuneDense = tune } = settings;
  const model = settings.tuneDense ? forTask(source.model, task, random) : source.model;
  const groups = componentGroups(model, sensitivity.coupling, sensitivity);
  // Before texts are made tokens, which takes a while.
  expectPossible(request, task, model, groups);
  const samples = holdOut(task.train(model), tune.validation, random);
  for (const { epochs, batchSize } of [tune, tuneDense]) {
    if (epochs > 0) expectBatch(samples.training, batchSize);
  }
  return { model, groups, ...samples };
}

/** What would otherwise be found out after scoring. */
function expectPossible(
  request: PruneRequest,
  task: Task,
  model: Model,
  groups: readonly ComponentGroup[],
): void {
  const { settings, timing } = request;
  const { floor, roundTo, implantRank } = settings.plan;
  expectImplantRank(groups, implantRank);
  const { epochs, distillation, hiddenDistillation = 0, labelSmoothing } = settings.tune;
  expectSmoothing({ name: task.objective }, labelSmoothing);
  if (distillation + hiddenDistillation > 1) {
    throw new EspalierError(
      "invalid-argument",
      `distill and distill-hidden: expected shares of at most 1 together, got ${distillation} and ${hiddenDistillation}`,
    );
  }
  if (epochs > 0 && hiddenDistillation > 0) {
    expectHidden(model, model.build(1, "evaluation"));
  }
  if (isByLatency(request)) {
    if (timing === undefined) {
      throw new EspalierError("invalid-argument", "keep-latency: expected a way to time models");
    }
    const { kind } = model.preprocessing;
    if (kind !== "image") {
      throw new EspalierError(
        "invalid-argument",
        `keep-latency: expected a model of images, whose times do not depend on the lengths of samples, got one of ${kind}s; --keep-macs is for both`,
      );
    }
  } else if (request.plan === undefined && roundTo !== "measured") {
    // Floors of later rounds are shares of what the ones before have left.
    const known = settings.rounds === 1 || floor === 0;
    if (known) expectReachable(model, groups, { ...settings.plan, roundTo });
  }
}

/** The model to be pruned, trained for the task first if that was asked for. */
async function prepareDense(
  run: RunDirectory,
  { settings: { tuneDense } }: PruneRequest,
  context: RunContext,
  { model, training, validation }: Start,
  random: Random,
): Promise<Model> {
  if (tuneDense === undefined) return model;
  await stage("tune dense", run, DENSE_MODEL, context, () =>
    trainInRun(
      run,
      model,
      context,
      {
        ...tuneDense,
        samples: training,
        validation,
        test: tuneDense.testEpochs ? context.task.test(model) : undefined,
        distillation: undefined,
        random: random.stream("tune dense"),
      },
      { model: DENSE_MODEL, curve: "dense-training.json", from: [] },
    ),
  );
  return (await loadSource(run.file(DENSE_MODEL), context.families)).model;
}

/** The files of the run that have the model to be pruned; none if it is the source. */
function denseFiles({ settings }: PruneRequest): string[] {
  return settings.tuneDense === undefined ? [] : modelFiles(DENSE_MODEL);
}

/** Whether the plan is made by times: one that is given is followed, whatever it takes. */
function isByLatency({ plan, settings }: PruneRequest): boolean {
  return plan === undefined && settings.plan.budget.of === "latency";
}

function metadataOf({ sourceName, source }: PruneRequest): Record<string, string> {
  return {
    "espalier.source": source.hub ?? fileName(sourceName),
    "espalier.source.sha256": source.sha256,
  };
}

/** What the run has done, from the files that it left. */
async function recordPruning(
  run: RunDirectory,
  { settings, source, sourceName, plan }: PruneRequest,
  data: string,
): Promise<PruningRecord> {
  const rounds: PruningRound[] = [];
  for (const prefix of roundPrefixes(settings.rounds, plan)) {
    const planned = (await readJson(run.file(`${prefix}plan.json`))) as PlanRecord;
    const scored = `${prefix}sensitivity.json`;
    const measured = run.has(scored)
      ? ((await readJson(run.file(scored))) as SensitivityRecord)
      : undefined;
    rounds.push(pruningRound(planned, measured));
  }
  return {
    source: { name: source.hub ?? fileName(sourceName), sha256: source.sha256 },
    data,
    seed: settings.seed,
    rounds,
  };
}

/** Where the files of each round are. A plan that was given is followed in one. */
function roundPrefixes(rounds: number, plan: PruneRequest["plan"]): string[] {
  if (rounds === 1 || plan !== undefined) return [""];
  return Array.from({ length: rounds }, (_, i) => `rounds/${i + 1}/`);
}

async function stage<T>(
  name: Stage,
  run: RunDirectory,
  file: string,
  { onEvent }: RunContext,
  work: () => Promise<T>,
): Promise<T> {
  const reused = run.has(file);
  onEvent?.({ type: "stage-start", stage: name });
  const result = await work();
  onEvent?.({ type: "stage-end", stage: name, reused });
  return result;
}

/** Sensitivity, plan and application, in as many rounds as asked for; leaves the model `pruned`. */
async function reduce(
  run: RunDirectory,
  request: PruneRequest,
  context: RunContext,
  dense: Model,
  { training, scores: taken }: Start,
  random: Random,
): Promise<PlanRecord> {
  const { settings } = request;
  const { executor, signal } = context;
  const prefixes = roundPrefixes(settings.rounds, request.plan);
  const rounds = prefixes.length;
  const coupling = settings.sensitivity.coupling;
  const table = await latencyTableOf(run, request, context, dense);
  let model = dense;
  let files = denseFiles(request);
  let plan: PlanRecord | undefined;
  for (let round = 1; round <= rounds; round++) {
    const last = round === rounds;
    const prefix = prefixes[round - 1];
    const scoresFile = `${prefix}sensitivity.json`;
    const planFile = `${prefix}plan.json`;
    const stream = roundStream(random, round);
    const score = async () =>
      round === 1 && taken !== undefined
        ? taken
        : sensitivityOf(model, training, settings.sensitivity, settings.batchSize, stream, context);
    const sensitivity =
      request.plan === undefined
        ? await stage("sensitivity", run, scoresFile, context, () =>
            run.json(scoresFile, score, files),
          )
        : undefined;
    const planFiles = [
      ...(sensitivity === undefined ? files : [scoresFile]),
      ...(table === undefined ? [] : [LATENCY_TABLE]),
    ];
    const scored =
      sensitivity &&
      decodeSensitivity(
        sensitivity,
        componentGroups(model, coupling, settings.sensitivity),
        run.file(scoresFile),
      );
    plan = await stage("plan", run, planFile, context, async () => {
      // Each round keeps the same share of what the one before has left; implants come last.
      const { budget, roundTo } = settings.plan;
      const wanted = budget.keep ** (round / rounds);
      const options = {
        ...settings.plan,
        budget: { ...budget, keep: wanted },
        implant: last ? settings.plan.implant : 0,
        roundTo: roundTo === "measured" ? table!.multiple : roundTo,
      };
      const decide = async (): Promise<PlanRecord> => {
        if (sensitivity === undefined) {
          const { record, path } = request.plan!;
          const groups = componentGroups(model, coupling);
          const given = decodeDecisions(record, groups, path);
          return encodePlan(
            describePlan(model, groups, given, record.options),
            record.metric,
            groups,
          );
        }
        const scores = scored!;
        const encode = (made: Plan, promise?: LatencyPromise) =>
          encodePlan(made, sensitivity.metric, sensitivity.groups, promise);
        if (table !== undefined) {
          const by = { dense, model, sensitivity: scores, options, table };
          if (!last) return encode(planByLatency(by));
          const { timing } = request;
          const kept = await keepLatency(run, { ...by, timing: timing!, ...context });
          return encode(kept.plan, kept.promise);
        }
        const whole = (of: Model) => costOf(of, budget.of, undefined, settings.sensitivity);
        const share = wanted * (whole(dense) / whole(model));
        const relative = { ...budget, keep: Math.min(1, share) };
        return encode(makePlan(model, scores, { ...options, budget: relative }));
      };
      const made = await run.json(planFile, decide, planFiles);
      // With several rounds, later scores follow from what earlier rounds removed.
      if (scored !== undefined && rounds === 1) {
        const latencyOf = table && ((of: Model) => predictLatency(table, of));
        const decideAll = async () =>
          encodeBudgets(makePlans(model, scored, options, budgetShares, latencyOf), scored);
        await run.json("budgets.json", decideAll, planFiles);
      }
      return made;
    });
    const followed = plan;
    const apply = async (path: string) => {
      const groups = componentGroups(model, coupling);
      const planPath = request.plan?.path ?? run.file(planFile);
      const decisions = decodeDecisions(followed, groups, planPath);
      const { implantRank } = followed.options;
      const reduced = await applyPlan(
        model,
        groups,
        decisions,
        { ...settings, implantRank },
        {
          ...{ executor, signal, onEvent: context.onEvent, random: stream },
          drawCalibration: () =>
            drawSamples(training, settings.calibration, stream.stream("calibration")),
        },
      );
      await saveModel(reduced, path);
    };
    const name = last ? PRUNED_MODEL : `${prefix}model`;
    await stage("apply", run, name, context, () =>
      run.directory(name, apply, [planFile, ...files]),
    );
    if (last) break;
    model = (await loadSource(run.file(name), context.families)).model;
    files = modelFiles(name);
  }
  return plan!;
}

/** The times of layers that a budget of latency needs; undefined for other budgets. */
async function latencyTableOf(
  run: RunDirectory,
  request: PruneRequest,
  context: RunContext,
  dense: Model,
): Promise<LatencyTable | undefined> {
  const { settings, timing, cacheDirectory } = request;
  if (!isByLatency(request) || timing === undefined) return undefined;
  return stage("latency-table", run, LATENCY_TABLE, context, () =>
    openLatencyTable(run, dense, {
      batch: settings.latencyBatch ?? 1,
      implants: settings.plan.implant > 0,
      coupling: settings.sensitivity.coupling,
      executor: context.executor.name,
      ...{ timing, cacheDirectory, signal: context.signal, onEvent: context.onEvent },
    }),
  );
}

/** Tunes the pruned model; leaves the final model. */
function tune(
  run: RunDirectory,
  { settings }: PruneRequest,
  context: RunContext,
  dense: Model,
  pruned: Model,
  training: Samples,
  validation: Samples | undefined,
  random: Random,
): Promise<readonly EpochRecord[]> {
  const { tune: tuning } = settings;
  const { distillation: weight, hiddenDistillation: hiddenWeight = 0 } = tuning;
  const distillation =
    weight + hiddenWeight > 0
      ? { weight, hiddenWeight, temperature: 4, teacher: dense }
      : undefined;
  return stage("tune", run, FINAL_MODEL, context, () =>
    trainInRun(
      run,
      pruned,
      context,
      {
        ...tuning,
        samples: training,
        validation,
        test: tuning.testEpochs ? context.task.test(dense) : undefined,
        distillation,
        random: random.stream("tune"),
      },
      { model: FINAL_MODEL, curve: CURVE, from: modelFiles(PRUNED_MODEL) },
    ),
  );
}

async function sizeRecord(model: Model, directory: string): Promise<SizeRecord> {
  const bytes = async (path: string) => (await stat(path)).size;
  return {
    ...sizeOfModel(model),
    checkpointBytes: await bytes(join(ownDirectory(directory), "model.safetensors")),
    onnxBytes: await bytes(join(directory, "onnx/model.onnx")),
  };
}

const SECONDS_PER_BATCH = 3;

async function compareLatencies(
  run: RunDirectory,
  executor: string,
  { source, settings }: PruneRequest,
  timing: Timing,
  signal: AbortSignal | undefined,
): Promise<LatencyRecord> {
  const batches: Record<string, { dense: Latency; pruned: Latency }> = {};
  const { latencyBatch = 1 } = settings;
  const sizes = [...new Set([...timedBatches(sizeOfModel(source.model).macs), latencyBatch])].sort(
    (a, b) => a - b,
  );
  for (const batch of sizes) {
    const { inputs } = source.model.build(batch, "evaluation");
    const models = ["dense", "pruned"].map(async (name) => ({
      onnx: await readBytes(run.file(exportedOnnx(name))),
      inputs,
    }));
    const [dense, pruned] = await timing.measure(
      await Promise.all(models),
      SECONDS_PER_BATCH,
      signal,
    );
    batches[batch] = { dense, pruned };
  }
  return { executor, machine: timing.machine, batches };
}
