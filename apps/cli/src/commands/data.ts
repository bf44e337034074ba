/** @file `espalier data`: fetches and verifies a data set. */
import type { Command } from "commander";
import { type CommonOptions, createContext } from "../context.ts";
import { addCommonOptions } from "../options.ts";

export function registerData(program: Command, signal: AbortSignal): void {
  addCommonOptions(program.command("data").argument("<name>", "cifar10, or cifar10:DIR"))
    .description("Downloads a data set once, verifies it and keeps it in the cache.")
    .addHelpText("after", "\nExample:\n  espalier data cifar10")
    .action(async (name: string, options: CommonOptions) => {
      const { print, openTask } = createContext(options, signal);
      const { classes, verified, trainCount, testCount, name: data } = await openTask(name);
      print({ data, verified, classes, trainCount, testCount }, () =>
        [
          `${data}: ${trainCount} training and ${testCount} test samples of ${classes.length} classes`,
          verified
            ? "checksums are those of the published files"
            : "checksums differ from the published files",
        ].join("\n"),
      );
    });
}
