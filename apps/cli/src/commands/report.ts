/** @file `espalier report`: the page of a run. */
import { renderReport } from "@espalier/report";
import type { Command } from "commander";
import { createOutput, type ModelOptions, type OutputOptions, openFamilies } from "../context.ts";
import { addOutputOptions, addPluginOption } from "../options.ts";

export function registerReport(program: Command, signal: AbortSignal): void {
  addOutputOptions(addPluginOption(program.command("report").argument("<run>", "a run directory")))
    .description("Makes one self-contained page, a model card and a summary of a run.")
    .addHelpText("after", "\nExample:\n  espalier report runs/half")
    .action(async (run: string, options: OutputOptions & ModelOptions) => {
      const { print } = createOutput(options, signal);
      // A page is made of the run's files alone; plugins that are given must load all the same.
      await openFamilies(options);
      const files = await renderReport(run);
      print(files, () => Object.values(files).join("\n"));
    });
}
