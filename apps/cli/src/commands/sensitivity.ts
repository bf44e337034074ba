/** @file `espalier sensitivity`: scores for every component. */
import { componentGroups, Random } from "@espalier/core";
import {
  decodeSensitivity,
  defaultPruning,
  encodeSensitivity,
  loadSource,
  RunDirectory,
  type SensitivityRecord,
  sensitivityOf,
} from "@espalier/pipeline";
import { renderReport } from "@espalier/report";
import type { Command } from "commander";
import { type CommonOptions, createContext, type ModelOptions, openFamilies } from "../context.ts";
import {
  addCommonOptions,
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
  addCommonOptions(addSensitivityOptions(addRunOptions(addPluginOption(command))))
    .addHelpText(
      "after",
      "\nExample:\n  espalier sensitivity resnet20-cifar10:weights.pt --data cifar10 --metric hessian-trace -o runs/trace",
    )
    .action(async (source: string, options: Options) => {
      expectEstimated(options);
      const context = await createContext(options, signal);
      const { families, plugins } = await openFamilies(options, resumedRun(options));
      const loaded = await loadSource(source, families, context);
      const task = await context.openTask(options.data);
      const settings = sensitivitySettings(options);
      const batchSize = options.batchSize ?? defaultPruning({ of: "macs", keep: 1 }).batchSize;
      const run = await RunDirectory.open(
        options.output,
        {
          command: "sensitivity",
          plugins,
          source,
          sha256: loaded.sha256,
          hub: loaded.hub,
          model: loaded.model.config,
          data: task.spec,
          verified: task.verified,
          dataDigest: await task.digest(),
          executor: context.executor.name,
          settings,
          seed: options.seed,
          batchSize,
        },
        options,
        [loaded.path, task.directory].filter((path) => path !== undefined),
      );
      const score = () => {
        const train = task.train(loaded.model);
        const random = new Random(options.seed);
        return sensitivityOf(loaded.model, train, settings, batchSize, random, context);
      };
      const file = "sensitivity.json";
      const scored = await run.json(file, score).finally(() => run.close());
      await renderReport(run.path);
      const groups = componentGroups(loaded.model, settings.coupling, settings.kinds);
      const record = encodeSensitivity(decodeSensitivity(scored, groups, run.file(file)));
      context.print({ directory: run.path, ...record }, () => summary(record, run.path));
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
