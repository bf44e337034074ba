/** @file `espalier env`: what this machine offers. */

import { readFileSync } from "node:fs";
import { arch, availableParallelism, cpus, platform, totalmem } from "node:os";
import { defaultCacheDirectory } from "@espalier/data";
import { formatBytes } from "@espalier/report";
import { onnxDevices, onnxVersion } from "@espalier/runtime-onnx";
import type { Command } from "commander";
import { formatOption } from "../options.ts";

/** The version of this package. */
export function espalierVersion(): string {
  const path = new URL("../../package.json", import.meta.url);
  return (JSON.parse(readFileSync(path, "utf8")) as { version: string }).version;
}

export function registerEnv(program: Command): void {
  program
    .command("env")
    .description("Shows versions, devices and directories; include it in reports of problems.")
    .addOption(formatOption())
    .addHelpText("after", "\nExample:\n  espalier env --format json")
    .action((options: { format: "table" | "json" }) => {
      const environment = {
        espalier: espalierVersion(),
        node: process.versions.node,
        platform: `${platform()} ${arch()}`,
        processor: cpus()[0]?.model ?? "unknown",
        cores: availableParallelism(),
        memory: formatBytes(totalmem()),
        "onnxruntime-node": onnxVersion(),
        devices: onnxDevices(),
        cache: defaultCacheDirectory(),
      };
      const text =
        options.format === "json"
          ? JSON.stringify(environment, undefined, 2)
          : Object.entries(environment)
              .map(
                ([name, value]) =>
                  `${name.padEnd(18)}${Array.isArray(value) ? value.join(", ") : value}`,
              )
              .join("\n");
      process.stdout.write(`${text}\n`);
    });
}
