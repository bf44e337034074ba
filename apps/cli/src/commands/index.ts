/** @file The commands, in the order in which help lists them. */
import type { Command } from "commander";
import { registerAverage } from "./average.ts";
import { registerBench } from "./bench.ts";
import { registerData } from "./data.ts";
import { registerEnv } from "./env.ts";
import { registerEvaluate } from "./evaluate.ts";
import { registerExport } from "./export.ts";
import { registerInspect } from "./inspect.ts";
import { registerPrune } from "./prune.ts";
import { registerReport } from "./report.ts";
import { registerSensitivity } from "./sensitivity.ts";
import { registerTrain } from "./train.ts";

export function registerCommands(program: Command, signal: AbortSignal): void {
  const registrations = [
    registerInspect,
    registerSensitivity,
    registerPrune,
    registerEvaluate,
    registerBench,
    registerExport,
    registerReport,
    registerTrain,
    registerAverage,
    registerData,
    registerEnv,
  ];
  for (const register of registrations) register(program, signal);
}
