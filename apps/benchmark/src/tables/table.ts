/** @file Benchmark tables as data: what is measured, and what others have published. */
import { readdir } from "node:fs/promises";
import { basename, join } from "node:path";
import { EspalierError, readJson } from "@espalier/base";
import {
  type ComponentKind,
  componentKinds,
  type EstimatorChoice,
  estimatorChoices,
} from "@espalier/core";
import * as z from "zod";
import { type CountedOperation, countedOperations } from "./hap-flops.ts";
import { methodNames } from "./methods.ts";

const count = z.int().min(1);
const share = z.number().min(0).max(1);
const rate = z.number().positive();

const training = z.strictObject({
  epochs: z.int().min(0),
  batchSize: count,
  optimizer: z.discriminatedUnion("name", [
    z.strictObject({
      name: z.literal("sgd"),
      momentum: share,
      nesterov: z.boolean(),
      weightDecay: share,
    }),
    z.strictObject({
      name: z.literal("adamw"),
      betas: z.tuple([share, share]),
      epsilon: rate,
      weightDecay: share,
    }),
  ]),
  schedule: z.strictObject({
    name: z.enum(["cosine", "step", "linear"]),
    peak: rate,
    warmup: share,
  }),
  /** What the norm of the gradient may be at most. */
  clip: rate.optional(),
});

const preset = z.strictObject({
  /** What it is for, and how long it takes. */
  description: z.string(),
  /**
   * Where the dense model comes from: a SOURCE of the command; files are looked for by their names.
   * With `training` it is trained first, from scratch if it is the name of a network.
   */
  source: z.string(),
  /** How the SHA-256 of its file begins. */
  sha256: z
    .string()
    .regex(/^[0-9a-f]{8,64}$/)
    .optional(),
  training: training.optional(),
  /** So many samples; null: all. */
  images: z.strictObject({
    train: count.nullable(),
    test: count.nullable(),
    /** Training samples of the dense model, where it is trained; default: `train`. */
    dense: count.nullable().optional(),
  }),
  /** Training samples that components are scored on. */
  samples: count,
  /** What estimates the Hessian's trace, where that is the metric; default: `auto`. */
  traceEstimator: z.enum(estimatorChoices as [EstimatorChoice, ...EstimatorChoice[]]).optional(),
  /** Training samples that layers are fitted to. */
  calibration: z.int().min(0),
  /** Shares of the budget to keep, the most telling first. */
  keep: z.array(z.number().positive().max(1)).min(1),
  seeds: z.array(z.int().min(0)).min(1),
  tune: training,
  /** Those of the table, unless said otherwise. */
  methods: z.array(z.enum(methodNames)).min(1).optional(),
});

/** Accuracies in per cent, as printed by the source. What is not known is null. */
const published = z.strictObject({
  method: z.string(),
  /** Which of the data sets it is about, where there are several. */
  data: z.string().optional(),
  accuracy: z.number().min(0).max(100).nullable(),
  /** Of the dense model that it was made from. */
  baseAccuracy: z.number().min(0).max(100).nullable(),
  parameters: z.number().positive().nullable(),
  /** Multiply-accumulates of a sample, which others call FLOPs. */
  macs: z.number().positive().nullable(),
  /** How many times fewer multiply-accumulates than the dense model has. */
  macsRatio: z.number().min(1).nullable(),
  source: z.string(),
  note: z.string().optional(),
});

const table = z.strictObject({
  title: z.string(),
  /** What the network is, and whose. */
  model: z.string(),
  /** What it takes to measure it: where files go, hours to expect. */
  notes: z.string().optional(),
  /** Names of data sets, as `openDataset` has them; each has cells of its own. */
  data: z.array(z.string()).min(1),
  /** What a share is kept of. */
  budget: z.enum(["macs", "parameters", "components"]),
  /** Kinds of components that are pruned; default: all. */
  kinds: z
    .array(z.enum(componentKinds as [ComponentKind, ...ComponentKind[]]))
    .min(1)
    .optional(),
  /** What HAP counts besides the operations that it always does; null: its count is not defined. */
  hapFlops: z
    .array(z.enum(countedOperations as [CountedOperation, ...CountedOperation[]]))
    .nullable(),
  methods: z.array(z.enum(methodNames)).min(1),
  presets: z.strictObject({ smoke: preset, quick: preset, paper: preset }),
  /** The paper's rows. */
  paper: z.array(published),
  /** Of the methods that it is compared with, and of others. */
  published: z.array(published),
});

export type Training = z.infer<typeof training>;
export type Preset = z.infer<typeof preset>;
export type Published = z.infer<typeof published>;
export type PresetName = keyof Table["presets"];

export interface Table extends z.infer<typeof table> {
  /** That of its file. */
  readonly name: string;
}

export const presetNames = Object.keys(table.shape.presets.shape) as PresetName[];

/** @throws EspalierError `invalid-file` naming the place that does not fit. */
export async function readTable(path: string): Promise<Table> {
  const { success, data, error } = table.safeParse(await readJson(path));
  if (success) return { name: basename(path, ".json"), ...data };
  const [{ message, path: at }] = error.issues;
  throw new EspalierError("invalid-file", `${path}: ${at.join(".")}: ${message}`, { path });
}

/** All tables of a directory, by name. */
export async function readTables(directory: string): Promise<readonly Table[]> {
  const names = (await readdir(directory)).filter((name) => name.endsWith(".json")).sort();
  return Promise.all(names.map((name) => readTable(join(directory, name))));
}
