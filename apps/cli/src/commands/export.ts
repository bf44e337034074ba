/** @file `espalier export`: a model for use elsewhere. */
import { rm } from "node:fs/promises";
import { expectEmpty, exportModel, loadSource } from "@espalier/pipeline";
import type { Command } from "commander";
import { type CommonOptions, createContext, families } from "../context.ts";
import { addCommonOptions, sourceArgument } from "../options.ts";

interface Options extends CommonOptions {
  readonly to: string;
  readonly overwrite: boolean;
}

export function registerExport(program: Command, signal: AbortSignal): void {
  addCommonOptions(program.command("export").addArgument(sourceArgument))
    .description("Writes config.json, model.safetensors and onnx/model.onnx.")
    .requiredOption("--to <dir>", "an empty or new directory")
    .option("--overwrite", "replace an earlier export", false)
    .addHelpText("after", "\nExample:\n  espalier export runs/half --to resnet56-half")
    .action(async (source: string, options: Options) => {
      const { print } = createContext(options, signal);
      const { model, sha256 } = await loadSource(source, families);
      if (options.overwrite) {
        // Only what an export consists of is replaced.
        const own = families.flatMap(({ files = [] }) => files);
        for (const name of ["config.json", "model.safetensors", "onnx", ...own]) {
          await rm(`${options.to}/${name}`, { recursive: true, force: true });
        }
      }
      await expectEmpty(options.to);
      await exportModel(model, options.to, {
        "espalier.source": source,
        "espalier.source.sha256": sha256,
      });
      print({ source, directory: options.to }, () => `exported to ${options.to}`);
    });
}
