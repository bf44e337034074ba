/** @file `espalier evaluate`: accuracy on the test set. */
import { evaluateExport, loadSource, onnxFiles, type Precision } from "@espalier/pipeline";
import { openOnnxModel } from "@espalier/runtime-onnx";
import { evaluate } from "@espalier/train";
import { type Command, Option } from "commander";
import { describeAccuracy } from "../accuracy.ts";
import { type CommonOptions, createContext, type ModelOptions, openFamilies } from "../context.ts";
import { onnxDeviceOf } from "../devices.ts";
import { addCommonOptions, addPluginOption, dataForms, sourceArgument } from "../options.ts";

interface Options extends CommonOptions, ModelOptions {
  readonly data: string;
  readonly precision?: Precision;
}

export function registerEvaluate(program: Command, signal: AbortSignal): void {
  addCommonOptions(addPluginOption(program.command("evaluate").addArgument(sourceArgument)))
    .description("Measures accuracy and loss on the test set.")
    .requiredOption("--data <data>", dataForms)
    .addOption(
      new Option(
        "--precision <name>",
        "judge this ONNX file of an export, or of a run, in the place of the model itself",
      ).choices(Object.keys(onnxFiles)),
    )
    .addHelpText(
      "after",
      "\nExamples:\n  espalier evaluate runs/half --data cifar10\n  espalier evaluate runs/half --data cifar10 --precision q8",
    )
    .action(async (source: string, options: Options) => {
      const { print, executor, openTask, onEvent } = await createContext(options, signal);
      const { families } = await openFamilies(options);
      const { model, path, sha256 } = await loadSource(source, families, { signal, onEvent });
      const task = await openTask(options.data);
      const { precision } = options;
      const settings = {
        batchSize: options.batchSize ?? 128,
        measures: task.measures,
        classes: task.classesIn(model),
        signal,
        onProgress: (done: number, total: number) =>
          onEvent({ type: "progress", stage: "evaluate", unit: "samples", done, total }),
      } as const;
      const { device, threads } = options;
      const open = (onnx: Uint8Array) =>
        openOnnxModel(onnx, { device: onnxDeviceOf(device), threads });
      const samples = task.test(model);
      const result =
        precision === undefined
          ? await evaluate(model, samples, { ...settings, executor })
          : await evaluateExport(source, model, samples, { ...settings, precision, open });
      print(
        { source: path, sha256, precision, data: task.name, verified: task.verified, ...result },
        () =>
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
