/** @file `espalier sensitivity`: scores for every component. */
import {
  defaultPruning,
  defaultTuningOf,
  encodeSensitivity,
  loadSource,
  type SensitivityRecord,
  scoreModel,
} from "@espalier/pipeline";
import { renderReport } from "@espalier/report";
import type { Command } from "commander";
import { type CommonOptions, createContext, type ModelOptions, openFamilies } from "../context.ts";
import {
  addCommonOptions,
  addHoldOutOption,
  addPluginOption,
  addRunOptions,
  addSensitivityOptions,
  dataForms,
  expectEstimated,
  resumedRun,
  type SensitivityOptions,
  sensitivitySettings,
  sourceArgument,
} from "../options.ts";
import { formatTable } from "../table.ts";

interface Options extends CommonOptions, ModelOptions, SensitivityOptions {
  readonly data: string;
  readonly holdOut?: number;
  readonly output: string;
  readonly resume: boolean;
  readonly overwrite: boolean;
}

export function registerSensitivity(program: Command, signal: AbortSignal): void {
  const command = program
    .command("sensitivity")
    .addArgument(sourceArgument)
    .description("Scores every component of a model: how much is lost without it.")
    .requiredOption("--data <data>", dataForms);
  const scoring = addHoldOutOption(
    addSensitivityOptions(addRunOptions(addPluginOption(command))),
    "left out, as prune holds them out",
  );
  addCommonOptions(scoring)
    .addHelpText(
      "after",
      "\nExample:\n  espalier sensitivity resnet20-cifar10:weights.pt --data cifar10 --metric hessian-trace -o runs/trace",
    )
    .action(async (sourceName: string, options: Options) => {
      expectEstimated(options);
      const context = await createContext(options, signal);
      const { families, plugins } = await openFamilies(options, resumedRun(options));
      const source = await loadSource(sourceName, families, context);
      const task = await context.openTask(options.data);
      const settings = sensitivitySettings(options);
      const batchSize = options.batchSize ?? defaultPruning({ of: "macs", keep: 1 }).batchSize;
      const holdOut = options.holdOut ?? defaultTuningOf(source.model).validation;
      const { directory, sensitivity } = await scoreModel(
        {
          ...{ source, sourceName, settings, holdOut, batchSize },
          seed: options.seed,
          directory: options.output,
          resume: options.resume,
          overwrite: options.overwrite,
        },
        { ...context, families, plugins, task },
      );
      await renderReport(directory);
      const record = encodeSensitivity(sensitivity);
      context.print({ directory, ...record }, () => summary(record, directory));
    });
}

function summary(record: SensitivityRecord, path: string): string {
  const { metric, estimator, samples, draws, negative, rankStability, groups } = record;
  const how =
    estimator === undefined ? "" : `, ${estimator}, ${draws} passes over ${samples} samples`;
  const number = (value: number) => value.toExponential(2);
  const rows = groups.map(({ name, count, scores, standardErrors }) => {
    const sorted = [...scores].sort((a, b) => a - b);
    const errors = standardErrors.map((error, i) => (error ?? 0) / Math.abs(scores[i] || 1));
    const typical = errors.sort((a, b) => a - b)[Math.floor(count / 2)];
    return [
      name,
      String(count),
      number(sorted[0]),
      number(sorted[Math.floor(count / 2)]),
      number(sorted[count - 1]),
      `${(100 * typical).toFixed(1)} %`,
    ];
  });
  return [
    `${metric}${how}: rank stability ${rankStability.toFixed(3)}, ${negative} scores below zero`,
    formatTable(["group", "components", "lowest", "median", "highest", "error"], rows),
    `written to ${path}/sensitivity.json; see ${path}/report.html`,
  ].join("\n");
}
