/** @file Scores of a model's components: measured, or taken from a run that has measured them. */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { EspalierError, readJson } from "@espalier/base";
import {
  type ComponentGroup,
  componentGroups,
  drawSamples,
  expectLayers,
  type Model,
  measureSensitivity,
  Random,
  type Samples,
  type Sensitivity,
  selectGroups,
} from "@espalier/core";
import * as z from "zod";
import { decodeSensitivity, encodeSensitivity, type SensitivityRecord } from "./records.ts";
import type { RunContext } from "./run-context.ts";
import {
  expectSame,
  MANIFEST,
  type Manifest,
  type OpenRunOptions,
  RunDirectory,
} from "./run-directory.ts";
import type { SensitivitySettings } from "./settings.ts";
import type { LoadedSource } from "./source.ts";
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
 * @throws EspalierError as `expectLayers`, `RunDirectory.open` and `measureSensitivity`.
 */
export async function scoreModel(
  request: ScoreRequest,
  context: RunContext,
): Promise<{ readonly directory: string; readonly sensitivity: Sensitivity }> {
  const { source, settings, seed, batchSize } = request;
  const { executor, task } = context;
  const all = componentGroups(source.model, settings.coupling);
  expectLayers(all, settings);
  const groups = selectGroups(all, settings);
  const run = await RunDirectory.open(
    request.directory,
    {
      command: "sensitivity",
      plugins: context.plugins,
      source: request.sourceName,
      sha256: source.sha256,
      hub: source.hub,
      model: source.model.config,
      data: task.spec,
      verified: task.verified,
      dataDigest: await task.digest(),
      executor: executor.name,
      settings,
      holdOut: request.holdOut,
      seed,
      batchSize,
    },
    request,
    [source.path, task.directory].filter((path) => path !== undefined),
  );
  try {
    const random = new Random(seed);
    const measure = () => {
      const { training } = holdOut(task.train(source.model), request.holdOut, random);
      const stream = roundStream(random, 1);
      return sensitivityOf(source.model, training, settings, batchSize, stream, context);
    };
    const record = await run.json(SCORES, measure);
    return {
      directory: run.path,
      sensitivity: decodeSensitivity(record, groups, run.file(SCORES)),
    };
  } finally {
    await run.close();
  }
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
const measured = { sha256: z.string(), model: z.unknown(), dataDigest: z.string() };
const origin = z.discriminatedUnion("command", [
  z.object({
    ...measured,
    command: z.literal("sensitivity"),
    executor: z.string(),
    settings: z.unknown(),
    holdOut: z.number(),
    seed: z.number(),
  }),
  z.object({
    ...measured,
    command: z.literal("prune"),
    executor: z.string(),
    settings: z.object({
      sensitivity: z.unknown(),
      tune: z.object({ validation: z.number() }),
      tuneDense: z.unknown().optional(),
      seed: z.number(),
    }),
  }),
]);

function originOf(manifest: Manifest, path: string): Manifest {
  const { data, error } = origin.safeParse(manifest);
  if (data === undefined) {
    const [{ path: keys, message }] = error.issues;
    throw new EspalierError(
      "invalid-file",
      `${path}: expected a run of prune or sensitivity, whose scores could be taken; ${keys.join(".")}: ${message}`,
      { path },
    );
  }
  const { sha256, model, dataDigest, executor } = data;
  const common = { sha256, model, dataDigest, executor };
  if (data.command === "sensitivity") {
    const { settings: sensitivity, holdOut, seed } = data;
    return { ...common, sensitivity, holdOut, seed };
  }
  const { sensitivity, tune, tuneDense, seed } = data.settings;
  return { ...common, sensitivity, holdOut: tune.validation, seed, tuneDense };
}

/**
 * The scores that another run began with, which are those that the run of `manifest` would measure.
 *
 * @throws EspalierError `invalid-argument` naming the first thing in which they would differ,
 *   `missing-file` or `invalid-file` if it has no scores, `mismatched-model` for scores of others.
 */
export async function takeScores(
  directory: string,
  manifest: Manifest,
  groups: readonly ComponentGroup[],
): Promise<SensitivityRecord> {
  const manifestPath = join(directory, MANIFEST);
  const before = originOf((await readJson(manifestPath)) as Manifest, manifestPath);
  expectSame(manifestPath, before, originOf(manifest, MANIFEST), "the run to take scores from");
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
  decodeSensitivity(record, groups, path);
  return record as SensitivityRecord;
}
