/** @file `espalier data`: fetches and verifies a data set. */
import type { Command } from "commander";
import { createOutput, type OutputOptions } from "../context.ts";
import { addOutputOptions, dataForms } from "../options.ts";

export function registerData(program: Command, signal: AbortSignal): void {
  addOutputOptions(program.command("data").argument("<name>", dataForms))
    .description(
      "Downloads a data set once, verifies it and keeps it in the cache; looks through a folder.",
    )
    .addHelpText("after", "\nExample:\n  espalier data cifar10")
    .action(async (name: string, options: OutputOptions) => {
      const { print, openTask } = createOutput(options, signal);
      const { classes, verified, counts, name: data } = await openTask(name);
      print({ data, verified, classes, ...counts }, () =>
        [
          `${data}: ${counts.train} training and ${counts.test} test samples of ${classes.length} classes`,
          verified
            ? "checksums are those of the published files"
            : "not compared with any published files, or different from them",
        ].join("\n"),
      );
    });
}
