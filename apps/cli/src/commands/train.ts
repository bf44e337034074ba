/** @file `espalier train`: a network from scratch, or a model further. */
import { defaultTextTuning, defaultTuning, trainModel } from "@espalier/pipeline";
import { describeEpochs, renderReport } from "@espalier/report";
import type { Command } from "commander";
import { Option } from "commander";
import { describeAccuracy } from "../accuracy.ts";
import { type CommonOptions, createContext, type ModelOptions, openFamilies } from "../context.ts";
import {
  addCommonOptions,
  addPluginOption,
  addRunOptions,
  dataForms,
  integer,
  number,
  resumedRun,
} from "../options.ts";

interface Options extends CommonOptions, ModelOptions {
  readonly data: string;
  readonly output: string;
  readonly resume: boolean;
  readonly overwrite: boolean;
  readonly epochs: number;
  readonly learningRate: number;
  readonly schedule: "cosine" | "step" | "linear";
  readonly warmup: number;
  readonly trainBatchSize: number;
  readonly optimizer: "sgd" | "adamw";
  readonly clip?: number;
  readonly weightDecay: number;
  readonly labelSmoothing: number;
  readonly holdOut: number;
}

const share = number(0, 1, "a number from 0 to 1");

export function registerTrain(program: Command, signal: AbortSignal): void {
  const command = program
    .command("train")
    .argument(
      "<source>",
      "a ready-made network, such as resnet20-cifar10, or a model to train further",
    )
    .description("Trains a network from scratch, or a model further.")
    .requiredOption("--data <data>", dataForms)
    .option(
      "--epochs <n>",
      "passes over the training samples; 0: the network as it begins",
      integer(0),
      30,
    )
    .option("--learning-rate <rate>", "its peak", number(0, 100, "a number"), 0.1)
    .addOption(
      new Option("--schedule <name>", "how the learning rate falls")
        .choices(["cosine", "step", "linear"])
        .default("cosine"),
    )
    .option("--warmup <share>", "share of all steps in which the learning rate rises", share, 0.1)
    .option("--train-batch-size <n>", "samples per step", integer(1), defaultTuning.batchSize)
    .addOption(
      new Option("--optimizer <name>", "AdamW for texts").choices(["sgd", "adamw"]).default("sgd"),
    )
    .option("--clip <norm>", "what the gradient's norm may be at most", number(0, 1e9, "a number"))
    .option("--weight-decay <decay>", "of weights", share, 5e-4)
    .option("--label-smoothing <share>", "spread evenly over all classes", share, 0)
    .option("--hold-out <n>", "training samples held out to watch the training", integer(0), 0);
  addCommonOptions(addRunOptions(addPluginOption(command)))
    .addHelpText(
      "after",
      "\nExample:\n  espalier train resnet20-cifar10 --data cifar10 --epochs 30 --learning-rate 0.15 -o runs/resnet20",
    )
    .action(async (source: string, options: Options) => {
      const context = await createContext(options, signal);
      const { families, plugins } = await openFamilies(options, resumedRun(options));
      const task = await context.openTask(options.data);
      const { epochs, schedule, learningRate: peak, warmup, labelSmoothing } = options;
      const result = await trainModel(
        {
          source,
          settings: {
            ...defaultTuning,
            epochs,
            batchSize: options.trainBatchSize,
            optimizer: {
              ...(options.optimizer === "adamw" ? defaultTextTuning : defaultTuning).optimizer,
              weightDecay: options.weightDecay,
            },
            clip: options.clip,
            schedule: { name: schedule, peak, warmup },
            labelSmoothing,
            validation: options.holdOut,
          },
          seed: options.seed,
          batchSize: options.batchSize ?? 128,
          directory: options.output,
          resume: options.resume,
          overwrite: options.overwrite,
        },
        { ...context, families, plugins, task },
      );
      await renderReport(result.directory);
      const judged = describeAccuracy(result.evaluation, task.objective);
      context.print(
        result,
        () =>
          `${judged} after ${describeEpochs(epochs)}\nwritten to ${result.directory}/model; see ${result.directory}/report.html`,
      );
    });
}
