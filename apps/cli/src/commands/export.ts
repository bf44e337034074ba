/** @file `espalier export`: a model for use elsewhere. */
import { existsSync } from "node:fs";
import { stat } from "node:fs/promises";
import { join, resolve } from "node:path";
import { drawSamples, Random } from "@espalier/core";
import {
  CALIBRATION_SAMPLES,
  exportModel,
  fileName,
  loadSource,
  MANIFEST,
  type PruningRecord,
  readPruning,
  writeExport,
} from "@espalier/pipeline";
import { formatBytes, writeExportCard } from "@espalier/report";
import type { Command } from "commander";
import { type CommonOptions, createContext, type ModelOptions, openFamilies } from "../context.ts";
import { addCommonOptions, addPluginOption, sourceArgument } from "../options.ts";
import { formatTable } from "../table.ts";

interface Options extends CommonOptions, ModelOptions {
  readonly to: string;
  readonly data?: string;
  readonly overwrite: boolean;
}

export function registerExport(program: Command, signal: AbortSignal): void {
  addCommonOptions(addPluginOption(program.command("export").addArgument(sourceArgument)))
    .description(
      "Writes a directory that Transformers.js and the Hub take: config.json, preprocessor_config.json, onnx/ in float32, float16 and 8 bits, model.safetensors, model.py for PyTorch and a model card. It is a SOURCE, too.",
    )
    .requiredOption("--to <dir>", "an empty or new directory")
    .option(
      "--data <data>",
      "training images to fix the ranges of the 8-bit model by (default: made-up images)",
    )
    .option("--overwrite", "replace an earlier export", false)
    .addHelpText(
      "after",
      "\nExamples:\n  espalier export runs/half --to resnet56-half\n  espalier export runs/half --to resnet56-half --data cifar10",
    )
    .action(async (source: string, options: Options) => {
      const { print, executor, openTask, onEvent } = await createContext(options, signal);
      const { families } = await openFamilies(options);
      const { to } = options;
      const { model, path, sha256, hub } = await loadSource(source, families, { signal, onEvent });
      const pruning = await pruningOf(source);
      const task = options.data === undefined ? undefined : await openTask(options.data);
      const random = new Random(options.seed).stream("export");
      const written = await writeExport(
        to,
        {
          overwrite: options.overwrite,
          inputs: [path],
          files: families.flatMap(({ files = [] }) => files),
        },
        async (partial) => {
          const files = await exportModel(model, partial, {
            executor,
            calibration: task && drawSamples(task.train(model), CALIBRATION_SAMPLES, random),
            metadata: {
              "espalier.source": hub ?? fileName(source),
              "espalier.source.sha256": sha256,
            },
            pruning,
            signal,
            onEvent,
          });
          const run = isRun(source) ? source : undefined;
          const card = await writeExportCard(partial, fileName(resolve(to)), run);
          const { size } = await stat(card);
          return [...files, { path: "README.md", bytes: size }];
        },
      );
      print({ source, directory: to, files: written }, () =>
        [
          formatTable(
            ["file", "size"],
            written.map(({ path, bytes }) => [path, formatBytes(bytes)]),
          ),
          `exported to ${to}`,
        ].join("\n"),
      );
    });
}

function isRun(source: string): boolean {
  return existsSync(join(source, MANIFEST)) && !existsSync(join(source, "config.json"));
}

/** What is known of how the model of `source`, a run or an earlier export, was pruned. */
async function pruningOf(source: string): Promise<PruningRecord | undefined> {
  const directory = isRun(source) ? join(source, "export", "pruned") : source;
  return existsSync(join(directory, "pruning.json")) ? readPruning(directory) : undefined;
}
