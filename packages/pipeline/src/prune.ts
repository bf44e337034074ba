/** @file From a model to a pruned, tuned, judged and exported one. */

import { stat } from "node:fs/promises";
import { join } from "node:path";
import {
  applyDecisions,
  componentGroups,
  countComponents,
  describePlan,
  drawSamples,
  type Model,
  type ModelFamily,
  type ModelSize,
  makePlan,
  measureSensitivity,
  Random,
  type Samples,
  sizeOfModel,
} from "@espalier/core";
import type { Executor } from "@espalier/graph";
import { type EpochRecord, type Evaluation, evaluate, reestimateStatistics } from "@espalier/train";
import type { OnPipelineEvent, Stage } from "./events.ts";
import { exportModel } from "./export.ts";
import { type Latency, measureLatencies, type Timed } from "./latency.ts";
import {
  decodeDecisions,
  decodeSensitivity,
  encodePlan,
  encodeSensitivity,
  type PlanRecord,
  type SensitivityRecord,
} from "./records.ts";
import { FINAL_MODEL, type OpenRunOptions, RunDirectory } from "./run-directory.ts";
import { saveModel } from "./save-model.ts";
import type { PruneSettings, SensitivitySettings } from "./settings.ts";
import { type LoadedSource, loadSource } from "./source.ts";
import type { Task } from "./task.ts";
import { forTask, holdOut, trainInRun } from "./train-in-run.ts";

export interface RunContext {
  readonly families: readonly ModelFamily[];
  readonly executor: Executor;
  readonly task: Task;
  readonly signal?: AbortSignal | undefined;
  readonly onEvent?: OnPipelineEvent;
}

/** How exported ONNX files are run to be timed. */
export interface Timing {
  readonly machine: Machine;
  /** Opens a file for one batch size. */
  open(path: string, batch: number): Promise<Timed & { dispose(): Promise<void> }>;
}

export interface PruneRequest extends OpenRunOptions {
  readonly source: LoadedSource;
  /** The source as it was asked for. */
  readonly sourceName: string;
  readonly settings: PruneSettings;
  readonly directory: string;
  /** A plan to follow instead of making one. */
  readonly plan?: { readonly record: PlanRecord; readonly path: string } | undefined;
  /** Without it nothing is timed. */
  readonly timing?: Timing | undefined;
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

/** What times were measured on. */
export interface Machine {
  readonly processor: string;
  readonly threads: number;
  /** Name and version of what ran the models. */
  readonly runtime: string;
}

export interface LatencyRecord {
  readonly executor: string;
  readonly machine: Machine;
  /** For each batch size, milliseconds per batch. */
  readonly batches: Readonly<Record<string, { readonly dense: Latency; readonly pruned: Latency }>>;
}

export interface PruneResult {
  readonly directory: string;
  readonly plan: PlanRecord;
  readonly evaluation: EvaluationRecord;
  readonly sizes: { readonly dense: SizeRecord; readonly pruned: SizeRecord };
  readonly history: readonly EpochRecord[];
  readonly latency: LatencyRecord | undefined;
}

/** The model trained before it is pruned. */
const DENSE_MODEL = "dense";

/** Scores the components of a model. */
export async function sensitivityOf(
  model: Model,
  train: Samples,
  settings: SensitivitySettings,
  batchSize: number,
  random: Random,
  { executor, signal, onEvent }: Pick<RunContext, "executor" | "signal" | "onEvent">,
): Promise<SensitivityRecord> {
  const samples = drawSamples(train, settings.samples, random.stream("sensitivity samples"));
  const sensitivity = await measureSensitivity(model, {
    ...settings,
    samples,
    executor,
    batchSize,
    random,
    signal,
    onEvent: ({ pass, passes }) => {
      const subject = settings.metric;
      onEvent?.({
        type: "progress",
        stage: "sensitivity",
        unit: "passes",
        done: pass,
        total: passes,
        subject,
      });
    },
  });
  return encodeSensitivity(sensitivity);
}

/**
 * Runs all stages in `directory`, skipping those whose files are there. Interrupted at any moment
 * and resumed, it ends in the same files, but for measured times.
 */
export async function prune(request: PruneRequest, context: RunContext): Promise<PruneResult> {
  const { source, settings } = request;
  const { executor, task } = context;
  const run = await RunDirectory.open(
    request.directory,
    {
      command: "prune",
      source: request.sourceName,
      sha256: source.sha256,
      model: source.model.config,
      data: task.spec,
      verified: task.verified,
      executor: executor.name,
      settings,
      plan: request.plan?.record,
    },
    request,
  );
  const random = new Random(settings.seed);
  const { dense, training, validation } = await prepareDense(run, request, context, random);

  const plan = await reduce(run, request, context, dense, training, random);
  const pruned = (await loadSource(run.file("pruned"), context.families)).model;
  const history = await tune(run, request, context, dense, pruned, training, validation, random);
  const tuned = (await loadSource(run.file(FINAL_MODEL), context.families)).model;

  const evaluation = await stage("evaluate", run, "evaluation.json", context, () =>
    run.json("evaluation.json", async (): Promise<EvaluationRecord> => {
      const test = task.test(dense);
      const judge = (subject: string, model: Model) =>
        evaluate(model, test, {
          executor,
          batchSize: settings.batchSize,
          measures: task.measures,
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
    }),
  );

  await stage("export", run, "export", context, () =>
    run.directory("export", async (path) => {
      await exportModel(tuned, join(path, "pruned"), metadataOf(request));
      await exportModel(dense, join(path, "dense"), metadataOf(request));
    }),
  );
  const sizes = await run.json("sizes.json", async () => ({
    dense: await sizeRecord(dense, run.file("export/dense")),
    pruned: await sizeRecord(tuned, run.file("export/pruned")),
  }));
  const { timing } = request;
  const latency =
    timing === undefined
      ? undefined
      : await stage("latency", run, "latency.json", context, () =>
          run.json("latency.json", () => compareLatencies(run, executor.name, timing)),
        );
  return { directory: run.path, plan, evaluation, sizes, history, latency };
}

/** The model to be pruned, trained for the task first if that was asked for, and its samples. */
async function prepareDense(
  run: RunDirectory,
  { source, settings }: PruneRequest,
  context: RunContext,
  random: Random,
): Promise<{ dense: Model; training: Samples; validation: Samples | undefined }> {
  const { task } = context;
  const { tuneDense } = settings;
  const start = tuneDense ? forTask(source.model, task, random) : source.model;
  const split = holdOut(task.train(start), settings.tune.validation, random);
  if (tuneDense === undefined) return { dense: start, ...split };
  await stage("tune dense", run, DENSE_MODEL, context, () =>
    trainInRun(
      run,
      start,
      context,
      {
        ...tuneDense,
        samples: split.training,
        validation: split.validation,
        distillation: undefined,
        random: random.stream("tune dense"),
      },
      { model: DENSE_MODEL, curve: "dense-training.json" },
    ),
  );
  return { dense: (await loadSource(run.file(DENSE_MODEL), context.families)).model, ...split };
}

function metadataOf({ sourceName, source }: PruneRequest): Record<string, string> {
  return { "espalier.source": sourceName, "espalier.source.sha256": source.sha256 };
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
  training: Samples,
  random: Random,
): Promise<PlanRecord> {
  const { settings } = request;
  const { executor, signal } = context;
  const rounds = request.plan === undefined ? settings.rounds : 1;
  let model = dense;
  let plan: PlanRecord | undefined;
  for (let round = 1; round <= rounds; round++) {
    const last = round === rounds;
    const prefix = rounds === 1 ? "" : `rounds/${round}/`;
    const stream = random.stream("round", round);
    const sensitivity =
      request.plan === undefined
        ? await stage("sensitivity", run, `${prefix}sensitivity.json`, context, () =>
            run.json(`${prefix}sensitivity.json`, () =>
              sensitivityOf(
                model,
                training,
                settings.sensitivity,
                settings.batchSize,
                stream,
                context,
              ),
            ),
          )
        : undefined;
    const coupling = settings.sensitivity.coupling;
    plan = await stage("plan", run, `${prefix}plan.json`, context, () =>
      run.json(`${prefix}plan.json`, async () => {
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
        // Each round keeps the same share of what the one before has left; implants come last.
        const { budget } = settings.plan;
        const wanted = budget.keep ** (round / rounds);
        const share = wanted * (costOf(dense, budget.of) / costOf(model, budget.of));
        const options = {
          ...settings.plan,
          budget: { ...budget, keep: Math.min(1, share) },
          implant: last ? settings.plan.implant : 0,
        };
        return encodePlan(
          makePlan(model, decodeSensitivity(sensitivity), options),
          sensitivity.metric,
          sensitivity.groups,
        );
      }),
    );
    const followed = plan;
    const name = last ? "pruned" : `${prefix}model`;
    await stage("apply", run, name, context, () =>
      run.directory(name, async (path) => {
        const groups = componentGroups(model, coupling);
        const planPath = request.plan?.path ?? run.file(`${prefix}plan.json`);
        const decisions = decodeDecisions(followed, groups, planPath);
        let reduced = applyDecisions(model, groups, decisions);
        // Nothing to make up for.
        const whole = [...decisions.values()].flat().every((decision) => decision === "keep");
        if (whole) return saveModel(reduced, path);
        const calibration = drawSamples(
          training,
          settings.calibration,
          stream.stream("calibration"),
        );
        const options = { executor, batchSize: settings.batchSize, signal };
        if (settings.implantStart === "zero") reduced = zeroImplants(reduced);
        else if (settings.implantStart === "least-squares" && settings.calibration > 0) {
          reduced = await model.fitImplants(reduced, calibration, options);
        }
        if (settings.calibration > 0) {
          // Statistics are those of batches, which should be large.
          const batchSize = Math.min(256, calibration.count);
          const augmentation = stream.stream("statistics");
          reduced = await reestimateStatistics(reduced, calibration, {
            ...options,
            batchSize,
            augmentation,
          });
        }
        await saveModel(reduced, path);
      }),
    );
    if (!last) model = (await loadSource(run.file(name), context.families)).model;
  }
  return plan!;
}

function costOf(model: Model, of: "components" | "parameters" | "macs"): number {
  if (of !== "components") return sizeOfModel(model)[of];
  return countComponents(componentGroups(model, "together"));
}

function zeroImplants(model: Model): Model {
  const { implants } = model.build(1, "evaluation");
  return model.withParameters(
    new Map(
      [...model.parameters].map(([name, parameter]) => [
        name,
        implants.has(name)
          ? { ...parameter, data: new Float32Array(parameter.data.length) }
          : parameter,
      ]),
    ),
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
  const distillation =
    tuning.distillation > 0
      ? { weight: tuning.distillation, temperature: 4, teacher: dense }
      : undefined;
  return stage("tune", run, FINAL_MODEL, context, () =>
    trainInRun(run, pruned, context, {
      ...tuning,
      samples: training,
      validation,
      distillation,
      random: random.stream("tune"),
    }),
  );
}

async function sizeRecord(model: Model, directory: string): Promise<SizeRecord> {
  const bytes = async (name: string) => (await stat(join(directory, name))).size;
  return {
    ...sizeOfModel(model),
    checkpointBytes: await bytes("model.safetensors"),
    onnxBytes: await bytes("onnx/model.onnx"),
  };
}

// One sample at a time, as in an application, and many, as in a service.
const TIMED_BATCHES = [1, 64];
const SECONDS_PER_BATCH = 3;

async function compareLatencies(
  run: RunDirectory,
  executor: string,
  { machine, open }: Timing,
): Promise<LatencyRecord> {
  const batches: Record<string, { dense: Latency; pruned: Latency }> = {};
  for (const batch of TIMED_BATCHES) {
    const models = [
      await open(run.file("export/dense/onnx/model.onnx"), batch),
      await open(run.file("export/pruned/onnx/model.onnx"), batch),
    ];
    const [dense, pruned] = await measureLatencies(models, SECONDS_PER_BATCH);
    batches[batch] = { dense, pruned };
    for (const model of models) await model.dispose();
  }
  return { executor, machine, batches };
}
