/** @file Where models come from: checkpoints, saved models, runs. */

import { createHash } from "node:crypto";
import { existsSync, statSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import { EspalierError, hashFile, readBytes, readJson } from "@espalier/base";
import { readCheckpoint, toFloat32 } from "@espalier/checkpoints";
import type { CheckpointSource, Model, ModelConfig, ModelFamily, Random } from "@espalier/core";
import { fetchFromHub } from "@espalier/data";
import type { OnPipelineEvent } from "./events.ts";
import { describePlugins, pluginsOfRun } from "./plugins.ts";
import { FINAL_MODEL, MANIFEST } from "./run-directory.ts";
import type { Task } from "./task.ts";
import { COMPACT, OWN_CONFIG } from "./transformers-files.ts";

/** A model and where it came from. */
export interface LoadedSource {
  readonly model: Model;
  readonly path: string;
  /** SHA-256 of the file that holds the tensors. */
  readonly sha256: string;
  /** Of models from the Hub: OWNER/NAME@COMMIT. */
  readonly hub?: string | undefined;
}

/**
 * SHA-256, hexadecimal, of how samples become the model's inputs, which its weights say nothing of: a
 * tokenizer and what it cuts, or means and deviations of images.
 */
export function inputDigest({ preprocessing }: Model): string {
  return createHash("sha256").update(JSON.stringify(preprocessing)).digest("hex");
}

export interface LoadOptions {
  readonly signal?: AbortSignal | undefined;
  readonly onEvent?: OnPipelineEvent;
}

const CONFIG = "config.json";
const HUB_NAME = /^(\w[\w.-]*\/\w[\w.-]*)(?:@([\w./-]+))?$/;
const WEIGHT_FILES = ["model.safetensors", "pytorch_model.bin"];
// A tokenizer of a million tokens takes a tenth of it.
const MOST_FILE_BYTES = 1 << 28;

/**
 * Loads a model from SOURCE: a directory with `config.json` and `model.safetensors` (or
 * `pytorch_model.bin`), saved or exported, a run directory (its final model), a checkpoint file,
 * `PRESET:FILE`, such as `resnet56-cifar10:weights.pt`, or, where there is no such file, a model of the
 * Hub: `OWNER/NAME` or `OWNER/NAME@REVISION`.
 *
 * @throws EspalierError `missing-file`, `invalid-file`, `mismatched-model` or `not-finite`, and as
 *   `fetchFromHub`.
 */
export async function loadSource(
  source: string,
  families: readonly ModelFamily[],
  options: LoadOptions = {},
): Promise<LoadedSource> {
  const colon = source.indexOf(":");
  const preset = source.slice(0, colon);
  const known = families.flatMap((family) => Object.keys(family.presets));
  if (colon > 0 && known.includes(preset)) {
    return loadFile(source.slice(colon + 1), families, preset);
  }
  if (!existsSync(source)) {
    const [, name, revision] = HUB_NAME.exec(source) ?? [];
    if (name !== undefined) return loadFromHub(name, revision, families, options);
    if (known.includes(source)) {
      throw new EspalierError(
        "missing-file",
        `${source}: expected a model, got a network without weights; ${source}:FILE loads some, and espalier train makes some`,
        { source },
      );
    }
    // A letter before a colon is a drive; a bare word may be a misspelt network.
    const hint =
      colon > 1 || /^[\w-]+$/.test(source) ? `; known networks are ${known.join(", ")}` : "";
    throw new EspalierError("missing-file", `${source}: no such file or directory${hint}`, {
      source,
    });
  }
  if (!statSync(source).isDirectory()) {
    const directory = dirname(source);
    const weights = WEIGHT_FILES.find((name) => existsSync(join(directory, name)));
    // A saved model may be called by its weights.
    const isSaved = weights === basename(source) && existsSync(join(directory, CONFIG));
    return isSaved ? loadDirectory(directory, families) : loadFile(source, families, undefined);
  }
  // A saved model may have the run that made it beside it; a run has its model below it.
  if (existsSync(join(source, MANIFEST)) && !existsSync(join(source, CONFIG))) {
    const final = join(source, FINAL_MODEL);
    if (!existsSync(final)) {
      const { command } = ((await readJson(join(source, MANIFEST))) ?? {}) as { command?: unknown };
      const why =
        command === "sensitivity"
          ? "a run of sensitivity has scores and no model"
          : `the run has no finished model (${FINAL_MODEL}); finish it with --resume`;
      throw new EspalierError("missing-file", `${source}: ${why}`, { source });
    }
    return loadDirectory(final, families);
  }
  return loadDirectory(source, families);
}

/** The ready-made network `preset`, untrained; undefined if no family has it. */
export function freshNetwork(
  preset: string,
  families: readonly ModelFamily[],
  random: Random,
  classes?: Task["classes"],
): Model | undefined {
  const family = families.find(({ presets }) => Object.hasOwn(presets, preset));
  if (family === undefined) return undefined;
  const config = family.presets[preset];
  return family.initialize(classes ? family.withClasses(config, classes) : config, random);
}

async function loadFromHub(
  name: string,
  revision: string | undefined,
  families: readonly ModelFamily[],
  options: LoadOptions,
): Promise<LoadedSource> {
  const choose = (files: readonly string[]) => neededFiles(name, files, families);
  const request = { type: "model", name, revision, choose } as const;
  const { directory, commit } = await fetchFromHub(request, options).catch((error: unknown) => {
    if (!EspalierError.isInstance(error) || error.code === "aborted") throw error;
    const { code, message, data } = error;
    throw new EspalierError(code, `${name}: no such file or directory; ${message}`, data, error);
  });
  return { ...(await loadDirectory(directory, families)), hub: `${name}@${commit}` };
}

/** Which files of a repository a model is loaded from. */
function neededFiles(
  name: string,
  files: readonly string[],
  families: readonly ModelFamily[],
): string[] {
  const has = (file: string) => files.includes(file);
  const prefix = has(`${COMPACT}/${CONFIG}`) ? `${COMPACT}/` : "";
  const weights = WEIGHT_FILES.map((file) => prefix + file).find(has);
  if (!has(CONFIG) || weights === undefined) {
    throw new EspalierError(
      "missing-file",
      `the repository ${name}: expected ${CONFIG} and ${WEIGHT_FILES.join(" or ")}, got ${files.slice(0, 8).join(", ")}`,
      { name },
    );
  }
  const others = new Set(families.flatMap(({ files: own = [] }) => own).filter(has));
  return [...new Set([CONFIG, prefix + CONFIG, weights, ...others])];
}

async function loadDirectory(
  directory: string,
  families: readonly ModelFamily[],
): Promise<LoadedSource> {
  const own = ownDirectory(directory);
  const config = await readConfig(join(own, CONFIG));
  const path = WEIGHT_FILES.map((name) => join(own, name)).find(existsSync);
  if (path === undefined) {
    throw new EspalierError(
      "missing-file",
      `${own}: expected ${WEIGHT_FILES.join(" or ")}, found neither`,
      { directory: own },
    );
  }
  const files = await readFiles(directory, families);
  return detectAndLoad({ ...(await readTensors(path, config)), files }, families);
}

/** Where, in a saved or exported model, configuration and weights are as we load them. */
export function ownDirectory(directory: string): string {
  const compact = join(directory, COMPACT);
  return [directory, compact].every((path) => existsSync(join(path, CONFIG))) ? compact : directory;
}

/**
 * The family's own configuration of the model in `directory`, saved or exported.
 *
 * @throws EspalierError `missing-file` or `invalid-file`.
 */
export function readModelConfig(directory: string): Promise<ModelConfig> {
  return readConfig(join(ownDirectory(directory), CONFIG));
}

/** The files in `directory` that some family wants to have. */
async function readFiles(
  directory: string,
  families: readonly ModelFamily[],
): Promise<Map<string, Uint8Array>> {
  const names = new Set(families.flatMap(({ files = [] }) => files));
  const found = new Map<string, Uint8Array>();
  for (const name of names) {
    const path = join(directory, name);
    if (!existsSync(path)) continue;
    const { size } = statSync(path);
    if (size > MOST_FILE_BYTES) {
      throw new EspalierError(
        "invalid-file",
        `${path}: expected at most ${MOST_FILE_BYTES} bytes, got ${size}`,
        { path, size },
      );
    }
    found.set(name, await readBytes(path));
  }
  return found;
}

/** A family's own configuration, whether it is all of the file or part of one for others. */
async function readConfig(path: string): Promise<ModelConfig> {
  const whole = await readJson(path);
  const isObject = (value: unknown) => typeof value === "object" && value !== null;
  const exported = isObject(whole) && Object.hasOwn(whole as object, OWN_CONFIG);
  const config = exported ? (whole as Record<string, unknown>)[OWN_CONFIG] : whole;
  if (!isObject(config) || typeof (config as ModelConfig).model_type !== "string") {
    const where = exported ? `${OWN_CONFIG}: ` : "";
    throw new EspalierError("invalid-file", `${path}: ${where}expected an object with model_type`, {
      path,
    });
  }
  return config as ModelConfig;
}

async function loadFile(
  path: string,
  families: readonly ModelFamily[],
  preset: string | undefined,
): Promise<LoadedSource> {
  if (path.endsWith(".onnx")) {
    throw new EspalierError(
      "invalid-file",
      `${path}: expected a checkpoint, got an ONNX file; what Espalier exports is loaded by its directory, above ${basename(dirname(path))}`,
      { path },
    );
  }
  const source = await readTensors(path, undefined);
  if (preset === undefined) return detectAndLoad(source, families);
  const family = families.find(({ presets }) => preset in presets)!;
  const config = family.detect(source);
  const found = config && family.presetOf(config);
  if (config === undefined || found !== preset) {
    throw new EspalierError(
      "mismatched-model",
      `${path}: expected a ${preset}, got ${found ?? "the tensors of some other network"}`,
      { path, expected: preset, actual: found },
    );
  }
  return { model: family.load(source, config), path, sha256: await hashFile(path, "sha256") };
}

async function readTensors(
  path: string,
  config: ModelConfig | undefined,
): Promise<CheckpointSource> {
  const { tensors } = await readCheckpoint(path);
  return {
    config,
    path,
    tensors: new Map(
      [...tensors].map(([name, tensor]) => [
        name,
        { shape: tensor.shape, data: toFloat32(tensor) },
      ]),
    ),
  };
}

async function detectAndLoad(
  source: CheckpointSource,
  families: readonly ModelFamily[],
): Promise<LoadedSource> {
  for (const family of families) {
    const config = family.detect(source);
    if (config === undefined) continue;
    const sha256 = await hashFile(source.path, "sha256");
    return { model: family.load(source, config), path: source.path, sha256 };
  }
  const names = families.map(({ name }) => name).join(", ");
  const what = source.config?.model_type ?? `the tensors of ${basename(source.path)}`;
  const plugins = await pluginsOfRun(source.path);
  const hint = plugins.length > 0 ? `; its run was made with ${describePlugins(plugins)}` : "";
  throw new EspalierError(
    "mismatched-model",
    `${source.path}: no model family recognises ${what}; known families are ${names}${hint}`,
    { path: source.path, plugins },
  );
}
