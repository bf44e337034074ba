/** @file `npm run benchmark`: measures tables, and writes what they show. */
import { existsSync } from "node:fs";
import { readdir, rm } from "node:fs/promises";
import { availableParallelism, cpus, totalmem } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { EspalierError, INTERRUPTED, onInterrupt, writeFileAtomic } from "@espalier/base";
import { encoders } from "@espalier/nlp";
import { createTiming, openTask, type PipelineEvent } from "@espalier/pipeline";
import {
  createOnnxExecutor,
  onnxDevices,
  onnxVersion,
  openOnnxModel,
} from "@espalier/runtime-onnx";
import { cifarResNet, preResNet, resNet, vgg } from "@espalier/vision";
import { complain } from "../complain.ts";
import { cellsOf } from "./cells.ts";
import { FIDELITY, measureFidelity } from "./fidelity.ts";
import { measureTable } from "./measure.ts";
import { renderPages } from "./pages.ts";
import { measurePeers, PEERS } from "./peers.ts";
import { measurePruningPeers } from "./pruning-peers.ts";
import { type PresetName, presetNames, readTables } from "./table.ts";

const root = fileURLToPath(new URL("../../../..", import.meta.url));
const benchmarks = join(root, "benchmarks");
const shared = join(root, "../shared/data");

const families = [cifarResNet, preResNet, vgg, resNet, ...encoders];

const usage = (names: readonly string[]) => `usage: npm run benchmark -- TABLE... [options]
       npm run benchmark -- --render

Measures the cells of tables that have no result yet, and writes results and pages. Stopped at any
moment and started again, it goes on where it was.

tables: ${names.join(", ")}

  --preset PRESET   smoke (a minute), quick (hours on 2 cores; default) or paper (the full recipe)
  --cells PATTERN   only cells whose names this regular expression matches, such as 'sst2-.*-seed0'
  --resume          go on after a stop; done without it, too
  --render          only write benchmarks/README.md and its plots from the results there are
  --data NAME:DIR   where a data set is, such as imagefolder:DIR or cifar10:DIR; may be repeated
  --models DIR      where trained models are (default: ../shared/data/cifar10-resnets); may be repeated
  --device DEVICE   what ONNX Runtime computes on (default: cpu)
  --threads N       (default: all cores)
  --python COMMAND  a Python with PyTorch, for peers (default: python3)
  --runs DIR        where runs go (default: runs/benchmark)
`;

async function main(signal: AbortSignal): Promise<void> {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      preset: { type: "string", default: "quick" },
      cells: { type: "string" },
      resume: { type: "boolean", default: false },
      render: { type: "boolean", default: false },
      data: { type: "string", multiple: true, default: [] },
      models: { type: "string", multiple: true, default: [join(shared, "cifar10-resnets")] },
      device: { type: "string", default: "cpu" },
      threads: { type: "string", default: String(availableParallelism()) },
      python: { type: "string", default: "python3" },
      runs: { type: "string", default: join(root, "runs/benchmark") },
      help: { type: "boolean", default: false },
    },
  });
  const tables = await readTables(join(benchmarks, "tables"));
  const names = [...tables.map(({ name }) => name), FIDELITY, PEERS];
  const unknown = positionals.find((name) => !names.includes(name));
  if (values.help || (positionals.length === 0 && !values.render)) {
    process.stderr.write(usage(names));
    process.exitCode = values.help ? 0 : 2;
    return;
  }
  const expectOneOf = (what: string, value: string, known: readonly string[]) => {
    if (known.includes(value)) return;
    throw new EspalierError(
      "invalid-argument",
      `${what}: expected one of ${known.join(", ")}, got ${value}`,
    );
  };
  if (unknown !== undefined) expectOneOf("table", unknown, names);
  expectOneOf("--preset", values.preset, presetNames);
  expectOneOf("--device", values.device, onnxDevices());
  const dataNames = new Set(["cifar10", ...tables.flatMap(({ data }) => data)]);
  for (const each of values.data) {
    const name = each.slice(0, Math.max(0, each.indexOf(":")));
    if (!dataNames.has(name)) {
      const known = [...dataNames].map((known) => `${known}:DIR`);
      throw new EspalierError(
        "invalid-argument",
        `--data: expected one of ${known.join(", ")}, got ${each}`,
      );
    }
  }
  const preset = values.preset as PresetName;
  const threads = Number(values.threads);
  const results = join(benchmarks, "results");
  const render = async () => {
    const pages = await renderPages(tables, results);
    for (const [path, text] of pages) await writeFileAtomic(join(benchmarks, path), text);
    // Plots of results that are gone.
    for (const name of await readdir(results, { recursive: true })) {
      const path = `results/${name}`;
      if (path.endsWith(".svg") && !pages.has(path)) await rm(join(benchmarks, path));
    }
  };
  const pattern = values.cells === undefined ? undefined : patternOf(values.cells);
  let isAnyWanted = pattern === undefined;
  const cells = pattern && {
    test: (name: string) => {
      const isWanted = pattern.test(name);
      isAnyWanted ||= isWanted;
      return isWanted;
    },
  };
  const log = (line: string) => process.stderr.write(`${line}\n`);
  const bench = {
    families,
    executor: createOnnxExecutor({
      device: values.device,
      threads,
      memoryLimit: totalmem() / 2,
    }),
    timing: createTiming(
      {
        processor: cpus()[0]?.model ?? "unknown",
        threads,
        runtime: `onnxruntime-node ${onnxVersion()}${values.device === "cpu" ? "" : ` on ${values.device}`}`,
      },
      (onnx) => openOnnxModel(onnx, { device: values.device, threads }),
    ),
    models: values.models,
    runs: values.runs,
    results,
    cells,
    signal,
    openTask: (name: string) => openTask(dataSpec(name, values.data, preset), { signal }),
    log,
    onEvent: (event: PipelineEvent) => showEvent(event, log),
  };
  try {
    for (const name of positionals) {
      const table = tables.find((each) => each.name === name);
      if (table !== undefined) await measureTable(table, preset, bench, render);
      else if (name === FIDELITY) await measureFidelity(preset, bench, tables);
      else {
        await measurePeers(preset, bench, values.python);
        await measurePruningPeers(preset, bench, values.python);
      }
    }
  } finally {
    await render();
  }
  if (!isAnyWanted) {
    const [example] = tables.flatMap((table) =>
      positionals.includes(table.name) ? cellsOf(table, preset) : [],
    );
    throw new EspalierError(
      "invalid-argument",
      `--cells: expected to match a cell of ${positionals.join(" or ")}${example ? ` such as ${example.name}` : ""}, got ${values.cells}`,
    );
  }
}

function patternOf(text: string): RegExp {
  try {
    return new RegExp(text);
  } catch (error) {
    throw new EspalierError(
      "invalid-argument",
      `--cells: expected a regular expression, got ${text}: ${(error as Error).message}`,
    );
  }
}

// Where data sets are looked for that are not said to be elsewhere.
const localData: Readonly<Record<string, string>> = {
  "glue/sst2": "glue/SST-2",
  "glue/mrpc": "glue/MRPC",
  "glue/rte": "glue/RTE",
  "glue/qnli": "glue/QNLI",
};

/** What `openTask` takes for the data set of a table. */
function dataSpec(name: string, given: readonly string[], preset: PresetName): string {
  const spec = given.find((each) => each.startsWith(`${name}:`));
  // A few images stand in for ImageNet where accuracies mean nothing.
  const smoke = preset === "smoke" && name === "imagefolder" ? "imagenette-mini" : undefined;
  const local = smoke ?? localData[name];
  if (spec !== undefined || local === undefined) return spec ?? name;
  const path = join(shared, local);
  return existsSync(path) ? `${name}:${path}` : name;
}

function showEvent(event: PipelineEvent, log: (line: string) => void): void {
  if (event.type === "epoch-end") {
    const { epoch, loss, testAccuracy } = event.record;
    const judged = testAccuracy === undefined ? "" : `, test ${(100 * testAccuracy).toFixed(2)} %`;
    log(`  epoch ${epoch} of ${event.epochs}: loss ${loss.toFixed(4)}${judged}`);
  } else if (event.type === "stage-start") {
    log(`  ${event.stage}`);
  }
}

const controller = new AbortController();
onInterrupt(() => controller.abort());
try {
  await main(controller.signal);
} catch (error) {
  complain(error);
  process.exitCode = EspalierError.isInstance(error, "aborted") ? INTERRUPTED : 1;
}
