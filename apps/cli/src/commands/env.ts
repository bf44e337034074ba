/** @file `espalier env`: what this machine offers. */

import { readFileSync } from "node:fs";
import { arch, availableParallelism, cpus, platform, totalmem } from "node:os";
import { defaultCacheDirectory } from "@espalier/data";
import { formatBytes } from "@espalier/report";
import { type Command, Option } from "commander";
import { openExecutor, tryDevices } from "../devices.ts";
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
    .addOption(new Option("--try <device>", "ends with success if the device computes").hideHelp())
    .action(async (options: { format: "table" | "json"; try?: string }) => {
      if (options.try !== undefined) {
        await openExecutor({ device: options.try });
        return;
      }
      const states = await tryDevices();
      const present = states.filter(({ problem }) => problem === undefined);
      const absent = states.filter(({ problem }) => problem !== undefined);
      const environment = {
        espalier: espalierVersion(),
        node: process.versions.node,
        platform: `${platform()} ${arch()}`,
        processor: cpus()[0]?.model ?? "unknown",
        cores: availableParallelism(),
        memory: formatBytes(totalmem()),
        devices: present.map(({ device }) => device),
        runtimes: [...new Set(present.map(({ runtime }) => runtime))],
        absent: Object.fromEntries(absent.map(({ device, problem }) => [device, problem])),
        cache: defaultCacheDirectory(),
      };
      const { absent: missing, ...rest } = environment;
      const rows = [
        ...Object.entries(rest).map(([name, value]) => [name, [value].flat().join(", ")]),
        ...Object.entries(missing).map(([device, problem]) => [`no ${device}`, problem]),
      ];
      const text =
        options.format === "json"
          ? JSON.stringify(environment, undefined, 2)
          : rows.map(([name, value]) => `${name?.padEnd(14)}${value}`).join("\n");
      process.stdout.write(`${text}\n`);
    });
}
