/** @file `espalier evaluate`: accuracy on the test set. */
import { loadSource } from "@espalier/pipeline";
import { evaluate } from "@espalier/train";
import type { Command } from "commander";
import { describeAccuracy } from "../accuracy.ts";
import { type CommonOptions, createContext, type ModelOptions, openFamilies } from "../context.ts";
import { addCommonOptions, addPluginOption, dataForms, sourceArgument } from "../options.ts";

export function registerEvaluate(program: Command, signal: AbortSignal): void {
  addCommonOptions(addPluginOption(program.command("evaluate").addArgument(sourceArgument)))
    .description("Measures accuracy and loss on the test set.")
    .requiredOption("--data <data>", dataForms)
    .addHelpText("after", "\nExample:\n  espalier evaluate runs/half --data cifar10")
    .action(async (source: string, options: CommonOptions & ModelOptions & { data: string }) => {
      const { print, executor, openTask, onEvent } = await createContext(options, signal);
      const { families } = await openFamilies(options);
      const { model, path, sha256 } = await loadSource(source, families, { signal, onEvent });
      const task = await openTask(options.data);
      const result = await evaluate(model, task.test(model), {
        executor,
        batchSize: options.batchSize ?? 128,
        measures: task.measures,
        classes: task.classesIn(model),
        signal,
        onProgress: (done, total) =>
          onEvent({ type: "progress", stage: "evaluate", unit: "samples", done, total }),
      });
      print({ source: path, sha256, data: task.name, verified: task.verified, ...result }, () =>
        [
          `${describeAccuracy(result, task.objective)} of ${task.name}`,
          `loss ${result.loss.toFixed(4)}`,
          ...Object.entries(result.measures ?? {}).map(
            ([name, value]) => `${name} ${value.toFixed(4)}`,
          ),
        ].join("\n"),
      );
    });
}
