/** @file Training as a stage of a run: leaves the final model and the curve, and can be resumed. */
import { EspalierError } from "@espalier/base";
import { float32Tensor, readSafetensors, toFloat32, writeSafetensors } from "@espalier/checkpoints";
import { type Model, objectiveOf, type Random, type Samples, selectSamples } from "@espalier/core";
import type { Executor } from "@espalier/graph";
import {
  type EpochRecord,
  type TrainingCheckpoint,
  type TrainOptions,
  train,
} from "@espalier/train";
import * as z from "zod";
import type { OnPipelineEvent } from "./events.ts";
import { FINAL_MODEL, type RunDirectory } from "./run-directory.ts";
import { saveModel } from "./save-model.ts";
import type { Task } from "./task.ts";

/** The learning curve. */
export const CURVE = "training.json";
// One file holds all of a training checkpoint, so that it is whole or not there.
const CHECKPOINT = "training.safetensors";

/** Splits off `count` samples, at most half of them, that are never trained or calibrated on. */
export function holdOut(
  all: Samples,
  count: number,
  random: Random,
): { training: Samples; validation: Samples | undefined } {
  const order = random.stream("validation").permutation(all.count);
  const held = Math.min(count, Math.floor(all.count / 2));
  return {
    validation: held === 0 ? undefined : selectSamples(all, order.slice(0, held).sort()),
    training: selectSamples(all, order.slice(held).sort()),
  };
}

/** Under which names a training leaves its model and its curve, and what it begins with. */
export interface TrainingFiles {
  readonly model: string;
  readonly curve: string;
  /** Files of the run. */
  readonly from: readonly string[];
}

/** `model`, or where it has no task yet, with a fresh head for `task`. */
export function forTask(model: Model, task: Task, random: Random): Model {
  if (model.classes.length > 0 || model.family.withHead === undefined) return model;
  return model.family.withHead(model, task, random.stream("head"));
}

/** Trains `model` unless the run has the trained one already; gives the curve. */
export async function trainInRun(
  run: RunDirectory,
  model: Model,
  context: {
    readonly executor: Executor;
    readonly signal?: AbortSignal | undefined;
    readonly onEvent?: OnPipelineEvent;
  },
  options: Omit<TrainOptions, "executor" | "resume" | "onCheckpoint" | "onEvent" | "signal">,
  { model: name, curve, from }: TrainingFiles = { model: FINAL_MODEL, curve: CURVE, from: [] },
): Promise<readonly EpochRecord[]> {
  const { executor, signal, onEvent } = context;
  const write = async (path: string) => {
    // Of a training whose model is no longer there.
    await run.discard(curve);
    if (options.epochs === 0) {
      await run.json(curve, async () => [], from);
      return saveModel(model, path);
    }
    await run.begin(CHECKPOINT, from);
    const trained = await train(model, {
      ...options,
      executor,
      resume: run.has(CHECKPOINT) ? await readCheckpoint(run.file(CHECKPOINT), model) : undefined,
      onCheckpoint: (checkpoint) => writeCheckpoint(run.file(CHECKPOINT), checkpoint),
      signal,
      onEvent: (event) => {
        if (event.type === "step-end") {
          const { step: done, steps: total } = event;
          onEvent?.({ type: "progress", stage: "tune", unit: "steps", done, total });
        } else if (event.type === "epoch-end") {
          const { type: _, epochs, ...record } = event;
          const { name: objective } = objectiveOf(model);
          onEvent?.({ type: "epoch-end", epochs, record, objective });
        }
      },
    });
    await run.json(curve, async () => trained.history, from);
    await saveModel(trained.model, path);
  };
  await run.directory(name, write, from);
  await run.discard(CHECKPOINT);
  return run.json(curve, async (): Promise<EpochRecord[]> => [], from);
}

async function writeCheckpoint(path: string, checkpoint: TrainingCheckpoint): Promise<void> {
  const { state, ...rest } = checkpoint;
  const tensors = new Map(
    [...state].map(([name, data]) => [name, float32Tensor([data.length], data)]),
  );
  await writeSafetensors(path, tensors, { training: JSON.stringify(rest) });
}

const progress = z.object({
  step: z.int().min(1),
  history: z.array(z.custom<EpochRecord>((value) => typeof value === "object" && value !== null)),
  partial: z.object({ loss: z.number(), correct: z.number(), count: z.number() }),
});

/** @throws EspalierError `invalid-file` for another file than `writeCheckpoint` writes of `model`. */
async function readCheckpoint(path: string, model: Model): Promise<TrainingCheckpoint> {
  const { tensors, metadata } = await readSafetensors(path);
  const fail = (what: string): never => {
    throw new EspalierError("invalid-file", `${path}: ${what}`, { path });
  };
  const { data } = progress.safeParse(parseJson(metadata.training));
  if (data === undefined) return fail("expected the progress of a training in its metadata");
  const state = new Map([...tensors].map(([name, tensor]) => [name, toFloat32(tensor)]));
  for (const [name, parameter] of model.parameters) {
    const count = state.get(name)?.length;
    if (count === parameter.data.length) continue;
    fail(`${name}: expected ${parameter.data.length} numbers, got ${count ?? "none"}`);
  }
  return { ...data, state };
}

function parseJson(text: string | undefined): unknown {
  try {
    return JSON.parse(text ?? "");
  } catch {
    return undefined;
  }
}
