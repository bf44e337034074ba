/** @file `espalier average`: several trainings of a network made into one model. */
import { drawSamples, Random } from "@espalier/core";
import { expectEmpty, loadSource, saveModel } from "@espalier/pipeline";
import { averageModels, reestimateStatistics } from "@espalier/train";
import type { Command } from "commander";
import { type CommonOptions, createContext, type ModelOptions, openFamilies } from "../context.ts";
import { addCommonOptions, addPluginOption, dataForms, integer } from "../options.ts";

interface Options extends CommonOptions, ModelOptions {
  readonly data: string;
  readonly to: string;
  readonly calibration: number;
}

export function registerAverage(program: Command, signal: AbortSignal): void {
  const command = program
    .command("average")
    .argument(
      "<sources...>",
      "models of one network, trained from each other or from one beginning",
    );
  addCommonOptions(addPluginOption(command))
    .description(
      "Averages the weights of several trainings of one network, which often does better than any of them, and estimates the statistics of normalisation anew.",
    )
    .requiredOption("--data <data>", dataForms)
    .requiredOption("--to <dir>", "an empty or new directory")
    .option("--calibration <n>", "training samples to estimate statistics on", integer(1), 10_000)
    .addHelpText(
      "after",
      "\nExample:\n  espalier train runs/first --data cifar10 --epochs 15 -o runs/second\n  espalier average runs/first runs/second --data cifar10 --to resnet20",
    )
    .action(async (sources: string[], options: Options) => {
      const { print, executor, openTask, onEvent } = await createContext(options, signal);
      const { families } = await openFamilies(options);
      await expectEmpty(options.to);
      const loaded = [];
      for (const source of sources)
        loaded.push(await loadSource(source, families, { signal, onEvent }));
      const mean = averageModels(loaded.map(({ model }) => model));
      const task = await openTask(options.data);
      const random = new Random(options.seed);
      const samples = drawSamples(
        task.train(mean),
        options.calibration,
        random.stream("calibration"),
      );
      const model = await reestimateStatistics(mean, samples, {
        executor,
        batchSize: options.batchSize ?? 250,
        augmentation: random.stream("statistics"),
        signal,
      });
      await saveModel(model, options.to);
      const of = loaded.map(({ path, sha256 }) => ({ path, sha256 }));
      print(
        { sources: of, directory: options.to },
        () => `the mean of ${sources.length} models is in ${options.to}`,
      );
    });
}
