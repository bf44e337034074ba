/** @file `espalier prune`: the main job. */
import { availableParallelism, cpus } from "node:os";
import { readJson } from "@espalier/base";
import type { Objective } from "@espalier/core";
import { defaultCacheDirectory } from "@espalier/data";
import {
  createTiming,
  latencyOutcome,
  loadSource,
  type PlanRecord,
  type PruneResult,
  prune,
  undisturbed,
} from "@espalier/pipeline";
import { describeEpochs, explainOutcome, formatBytes, renderReport } from "@espalier/report";
import { onnxVersion, openOnnxModel } from "@espalier/runtime-onnx";
import type { Command } from "commander";
import { formatAccuracy } from "../accuracy.ts";
import { type CommonOptions, createContext, type ModelOptions, openFamilies } from "../context.ts";
import { onnxDeviceOf } from "../devices.ts";
import {
  addCommonOptions,
  addPluginOption,
  addPruneOptions,
  addRunOptions,
  dataForms,
  expectBudget,
  expectEstimated,
  expectNoPlanning,
  expectTuning,
  type PruneOptions,
  pruneSettings,
  resumedRun,
  sourceArgument,
} from "../options.ts";
import { formatTable } from "../table.ts";

interface Options extends CommonOptions, ModelOptions, Omit<PruneOptions, "seed" | "batchSize"> {
  readonly data: string;
  readonly output: string;
  readonly resume: boolean;
  readonly overwrite: boolean;
  readonly plan?: string;
  readonly scores?: string;
}

export function registerPrune(program: Command, signal: AbortSignal): void {
  const command = program
    .command("prune")
    .addArgument(sourceArgument)
    .description(
      "Prunes a model to a budget: scores components, decides which to keep, to replace by implants and to remove, tunes, judges and exports.",
    )
    .requiredOption("--data <data>", dataForms);
  addCommonOptions(addPruneOptions(addRunOptions(addPluginOption(command))))
    .addHelpText(
      "after",
      [
        "",
        "Examples:",
        "  espalier prune resnet56-cifar10:weights.pt --data cifar10 --keep-macs 0.5 --implant 0.1 --tune 3 -o runs/half",
        "  espalier prune ./my-resnet --data cifar10:DIR --keep-params 0.3 --metric hessian-trace -o runs/small",
        "  espalier prune resnet56-cifar10:weights.pt --data cifar10 --keep-latency 0.6 --latency-batch 64 --tune 3 -o runs/fast",
        "  espalier prune resnet56-cifar10:weights.pt --data cifar10 --keep-macs 0.5 --implant 0.1 --tune 3 -o runs/half --resume",
        "  espalier prune resnet56-cifar10:weights.pt --data cifar10 --keep-macs 0.3 --scores runs/half --tune 3 -o runs/third",
      ].join("\n"),
    )
    .action(async (sourceName: string, options: Options) => {
      if (options.plan !== undefined) expectNoPlanning(command);
      else expectBudget(options);
      expectEstimated(options);
      expectTuning(command, options);
      const context = await createContext(options, signal);
      const { families, plugins } = await openFamilies(options, resumedRun(options));
      const source = await loadSource(sourceName, families, context);
      const settings = pruneSettings(options, source.model);
      const plan =
        options.plan === undefined
          ? undefined
          : { record: (await readJson(options.plan)) as PlanRecord, path: options.plan };
      const task = await context.openTask(options.data);
      const result = await prune(
        {
          source,
          sourceName,
          settings,
          directory: options.output,
          plan,
          scores: options.scores,
          resume: options.resume,
          overwrite: options.overwrite,
          timing: createTiming(
            {
              processor: cpus()[0]?.model ?? "unknown",
              threads: options.threads ?? availableParallelism(),
              runtime: `onnxruntime-node ${onnxVersion()}`,
            },
            (onnx) =>
              openOnnxModel(onnx, {
                device: onnxDeviceOf(options.device),
                threads: options.threads,
              }),
          ),
          cacheDirectory: defaultCacheDirectory(),
        },
        { ...context, families, plugins, task },
      );
      await renderReport(result.directory);
      context.print(result, () => pruneSummary(result, task.objective));
    });
}

const describeTuning = (epochs: number) =>
  epochs === 0 ? "not tuned" : `tuned for ${describeEpochs(epochs)}`;

/** The table of a run: dense, pruned before tuning, pruned after. */
export function pruneSummary(
  { evaluation, sizes, plan, components, latency, directory, history }: PruneResult,
  objective: Objective["name"],
): string {
  const { dense, pruned } = sizes;
  const count = (n: number) => n.toLocaleString("en");
  const ratio = (whole: number, part: number) => `${(whole / part).toFixed(2)}×`;
  const kept = `${count(components - plan.after.components)} removed, ${plan.after.implants} implants`;
  const rows = [
    [
      objective === "regression" ? "test correlation" : "test accuracy",
      ...[evaluation.dense, evaluation.pruned, evaluation.tuned].map(({ accuracy }) =>
        formatAccuracy(accuracy, objective),
      ),
      "",
    ],
    ...Object.keys(evaluation.dense.measures ?? {}).map((name) => [
      name,
      ...[evaluation.dense, evaluation.pruned, evaluation.tuned].map(({ measures }) =>
        Object.entries(measures ?? {})
          .find(([each]) => each === name)![1]
          .toFixed(4),
      ),
      "",
    ]),
    ["components", count(components), kept, "", ""],
    [
      "parameters",
      count(dense.parameters),
      count(pruned.parameters),
      "same",
      ratio(dense.parameters, pruned.parameters),
    ],
    ["MACs", count(dense.macs), count(pruned.macs), "same", ratio(dense.macs, pruned.macs)],
    ...Object.entries(latency?.batches ?? {}).map(([batch, times]) => {
      const [before, after] = [undisturbed(times.dense), undisturbed(times.pruned)];
      return [
        `ms, batch ${batch}`,
        before.toFixed(2),
        after.toFixed(2),
        "same",
        ratio(before, after),
      ];
    }),
    [
      "checkpoint",
      formatBytes(dense.checkpointBytes),
      formatBytes(pruned.checkpointBytes),
      "same",
      ratio(dense.checkpointBytes, pruned.checkpointBytes),
    ],
    [
      "ONNX",
      formatBytes(dense.onnxBytes),
      formatBytes(pruned.onnxBytes),
      "same",
      ratio(dense.onnxBytes, pruned.onnxBytes),
    ],
  ];
  const outcome = plan.latency && latencyOutcome(plan.latency, latency?.batches);
  return [
    formatTable(["", "dense", "pruned", describeTuning(history.length), "smaller"], rows),
    ...(outcome === undefined ? [] : [explainOutcome(outcome)]),
    `${evaluation.dense.count} test samples of ${evaluation.data}; everything is in ${directory}, see ${directory}/report.html`,
  ].join("\n");
}
