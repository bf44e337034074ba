/** @file `espalier report`: the page of a run. */
import { renderReport } from "@espalier/report";
import type { Command } from "commander";
import { type CommonOptions, createContext } from "../context.ts";
import { addCommonOptions } from "../options.ts";

export function registerReport(program: Command, signal: AbortSignal): void {
  addCommonOptions(program.command("report").argument("<run>", "a run directory"))
    .description("Makes one self-contained page, a model card and a summary of a run.")
    .addHelpText("after", "\nExample:\n  espalier report runs/half")
    .action(async (run: string, options: CommonOptions) => {
      const { print } = createContext(options, signal);
      const files = await renderReport(run);
      print(files, () => Object.values(files).join("\n"));
    });
}
