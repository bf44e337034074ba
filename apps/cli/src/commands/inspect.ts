/** @file `espalier inspect`: what a model is made of. */

import { existsSync } from "node:fs";
import { Random } from "@espalier/core";
import { freshNetwork, type Inspection, inspect, loadSource } from "@espalier/pipeline";
import { formatBytes } from "@espalier/report";
import type { Command } from "commander";
import { createOutput, type ModelOptions, type OutputOptions, openFamilies } from "../context.ts";
import { addOutputOptions, addPluginOption, sourceArgument } from "../options.ts";
import { formatTable } from "../table.ts";

export function registerInspect(program: Command, signal: AbortSignal): void {
  addOutputOptions(addPluginOption(program.command("inspect").addArgument(sourceArgument)))
    .description("Shows a model's layers, its size and what of it can be removed.")
    .addHelpText(
      "after",
      "\nExamples:\n  espalier inspect resnet56-cifar10:cifar10_resnet56-187c023a.pt\n  espalier inspect resnet56-cifar10",
    )
    .action(async (source: string, options: OutputOptions & ModelOptions) => {
      const { print, onEvent } = createOutput(options, signal);
      const { families } = await openFamilies(options);
      // What is trained under the name of a network is no longer a fresh one.
      const fresh = existsSync(source) ? undefined : freshNetwork(source, families, new Random(0));
      const { model, path, sha256 } = fresh
        ? { model: fresh, path: source }
        : await loadSource(source, families, { signal, onEvent });
      const inspection = inspect(model);
      print({ source: path, sha256, ...inspection }, () =>
        [
          `${path}`,
          `${inspection.preset ?? inspection.family}, ${describeClasses(inspection)}, input ${describeInput(inspection)}`,
          `${inspection.parameters.toLocaleString("en")} parameters, ${inspection.macs.toLocaleString("en")} multiply-accumulates, ${formatBytes(inspection.peakBytes)} at its peak`,
          `${inspection.components} removable components (${Object.entries(inspection.kinds)
            .map(([kind, count]) => `${count} ${kind}s`)
            .join(
              ", ",
            )})${inspection.implants > 0 ? `, ${inspection.implants} of them implants` : ""}`,
          "",
          formatTable(
            ["layer", "shape", "parameters"],
            inspection.layers.map(({ layer, shape, parameters }) => [
              layer,
              shape.join("×"),
              parameters.toLocaleString("en"),
            ]),
          ),
        ].join("\n"),
      );
    });
}

function describeClasses({ classes }: Inspection): string {
  return classes.length === 0 ? "no head for any task" : `${classes.length} classes`;
}

function describeInput({ input, mean, std }: Inspection): string {
  if (mean === undefined || std === undefined) return `texts of up to ${input} tokens`;
  return `${input.join("×")}, mean ${mean.join(", ")}, std ${std.join(", ")}`;
}
