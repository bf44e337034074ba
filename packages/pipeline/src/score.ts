/** @file Scores of a model's components: measured, or taken from a run that has measured them. */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { EspalierError, hashFile, readJson } from "@espalier/base";
import {
  type ComponentGroup,
  componentGroups,
  drawSamples,
  type Model,
  measureSensitivity,
  Random,
  type Samples,
  type Sensitivity,
} from "@espalier/core";
import * as z from "zod";
import { decodeSensitivity, encodeSensitivity, type SensitivityRecord } from "./records.ts";
import type { RunContext } from "./run-context.ts";
import {
  DENSE_MODEL,
  expectSame,
  MANIFEST,
  type Manifest,
  type OpenRunOptions,
  RunDirectory,
} from "./run-directory.ts";
import { modelFiles } from "./save-model.ts";
import type { PruneSettings, SensitivitySettings } from "./settings.ts";
import { inputDigest, type LoadedSource } from "./source.ts";
import { holdOut } from "./train-in-run.ts";

const SCORES = "sensitivity.json";

export interface ScoreRequest extends OpenRunOptions {
  readonly source: LoadedSource;
  /** The source as it was asked for. */
  readonly sourceName: string;
  readonly settings: SensitivitySettings;
  /** Training samples that nothing is measured on, as `TuneSettings.validation`. */
  readonly holdOut: number;
  readonly seed: number;
  readonly batchSize: number;
  readonly directory: string;
}

/**
 * Scores the components of a model in a run directory, as the first round of `prune` does.
 *
 * @throws EspalierError as `componentGroups`, `Task.train`, `RunDirectory.open` and `measureSensitivity`.
 */
export async function scoreModel(
  request: ScoreRequest,
  context: RunContext,
): Promise<{ readonly directory: string; readonly sensitivity: Sensitivity }> {
  const { source, settings, seed, batchSize } = request;
  const { task } = context;
  const groups = componentGroups(source.model, settings.coupling, settings);
  const random = new Random(seed);
  const { training } = holdOut(task.train(source.model), request.holdOut, random);
  const run = await RunDirectory.open(
    request.directory,
    {
      command: "sensitivity",
      ...(await manifestOf(request, context)),
      settings,
      holdOut: request.holdOut,
      seed,
      batchSize,
    },
    request,
    [source.path, task.directory].filter((path) => path !== undefined),
  );
  try {
    const stream = roundStream(random, 1);
    const measure = () =>
      sensitivityOf(source.model, training, settings, batchSize, stream, context);
    const record = await run.json(SCORES, measure);
    return {
      directory: run.path,
      sensitivity: decodeSensitivity(record, groups, run.file(SCORES)),
    };
  } finally {
    await run.close();
  }
}

/** What the manifests of runs that score say of the model, the data and what computes. */
export async function manifestOf(
  { source, sourceName }: Pick<ScoreRequest, "source" | "sourceName">,
  { plugins, task, executor }: RunContext,
) {
  return {
    plugins,
    source: sourceName,
    sha256: source.sha256,
    hub: source.hub,
    model: source.model.config,
    inputDigest: inputDigest(source.model),
    data: task.spec,
    verified: task.verified,
    dataDigest: await task.digest(),
    executor: executor.name,
  };
}

/** All randomness of a round's scores and fits. */
export function roundStream(random: Random, round: number): Random {
  return random.stream("round", round);
}

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

// What the first round's scores follow from; batches change them by rounding alone.
const common = {
  sha256: z.string(),
  model: z.unknown(),
  inputDigest: z.string(),
  dataDigest: z.string(),
  executor: z.string(),
};
const origin = z.discriminatedUnion("command", [
  z.object({
    ...common,
    command: z.literal("sensitivity"),
    settings: z.unknown(),
    holdOut: z.number(),
    seed: z.number(),
  }),
  z.object({
    ...common,
    command: z.literal("prune"),
    settings: z.object({
      sensitivity: z.unknown(),
      tune: z.object({ validation: z.number() }),
      tuneDense: z.unknown().optional(),
      seed: z.number(),
    }),
  }),
]);

/** What the scores of the run in `directory` follow from, by its manifest. */
async function originOf(manifest: Manifest, directory: string): Promise<Manifest> {
  const path = join(directory, MANIFEST);
  const { data, error } = origin.safeParse(manifest);
  if (data === undefined) {
    const [{ path: keys, message }] = error.issues;
    throw new EspalierError(
      "invalid-file",
      `${path}: expected a run of prune or sensitivity, of this version, whose scores could be taken; ${keys.join(".")}: ${message}`,
      { path },
    );
  }
  const { sha256, model, inputDigest, dataDigest, executor } = data;
  const source = { sha256, model };
  const others = { inputDigest, dataDigest, executor };
  if (data.command === "sensitivity") {
    const { settings: sensitivity, holdOut, seed } = data;
    return { ...source, ...others, sensitivity, holdOut, seed };
  }
  const { sensitivity, tune, tuneDense, seed } = data.settings;
  const scored = tuneDense === undefined ? source : await trainedDense(directory);
  return { ...scored, ...others, sensitivity, holdOut: tune.validation, seed };
}

/** The model that a run has trained before scoring it, as it would be the source of another. */
async function trainedDense(directory: string): Promise<Manifest> {
  const [config, weights] = modelFiles(join(directory, DENSE_MODEL));
  return { sha256: await hashFile(weights, "sha256"), model: await readJson(config) };
}

/**
 * The scores that another run began with, which are those that the run of `manifest` would measure.
 *
 * @throws EspalierError `invalid-argument` naming the first thing in which they would differ,
 *   `missing-file` or `invalid-file` if it has no scores, `mismatched-model` for scores of others.
 */
export async function takeScores(
  directory: string,
  manifest: Manifest & { readonly settings: PruneSettings },
  groups: readonly ComponentGroup[],
): Promise<SensitivityRecord> {
  const { sensitivity, tuneDense } = manifest.settings;
  if (tuneDense !== undefined) {
    throw new EspalierError(
      "invalid-argument",
      `scores: expected a model that has scores, got one that is to be trained first; after a run with tune-dense its directory ${DENSE_MODEL} is such a model`,
    );
  }
  const manifestPath = join(directory, MANIFEST);
  const before = await originOf((await readJson(manifestPath)) as Manifest, directory);
  const now = await originOf(manifest, "");
  expectSame(manifestPath, before, now, "the run to take scores from");
  const path = [SCORES, join("rounds", "1", SCORES)]
    .map((name) => join(directory, name))
    .find((each) => existsSync(each));
  if (path === undefined) {
    throw new EspalierError(
      "missing-file",
      `${join(directory, SCORES)}: expected the scores of a run, which has not measured any`,
      { path: directory },
    );
  }
  const record = await readJson(path);
  const decoded = decodeSensitivity(record, groups, path);
  for (const key of ["metric", "coupling", "temperature"] as const) {
    if (decoded[key] === sensitivity[key]) continue;
    throw new EspalierError(
      "invalid-file",
      `${path}: expected scores with the ${key} ${sensitivity[key]} of the run, got ${decoded[key]}`,
      { path },
    );
  }
  // In the order in which they were written.
  return { ...(record as SensitivityRecord), ...encodeSensitivity(decoded) };
}
