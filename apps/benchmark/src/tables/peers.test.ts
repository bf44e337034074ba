import { mkdtemp, readdir, rename, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Random } from "@espalier/core";
import { saveModel } from "@espalier/pipeline";
import { cifarResNet } from "@espalier/vision";
import { noiseSamples } from "@espalier/vision/testing";
import { expect, test } from "vitest";
import type { Program, runProgram } from "../program.ts";
import type { Bench } from "./measure.ts";
import { alignedRows, measurePeers, peersSection } from "./peers.ts";

test("traces of rows are compared weight by weight, whatever their order", () => {
  const [ours, theirs] = alignedRows(
    { "a.weight": [1, 2], "b.weight": [3] },
    { "b.weight": [30], "a.weight": [10, 20], "fc.weight": [5] },
  );
  expect([...ours]).toEqual([1, 2, 3]);
  expect([...theirs]).toEqual([10, 20, 30]);
  expect(() => alignedRows({ a: [1, 2] }, { a: [1] })).toThrow(
    "expected as many as ours, 2, got 1",
  );
  expect(() => alignedRows({ a: [1] }, { b: [1] })).toThrow("expected as many as ours, 0, got 0");
});

test("every program has a result of its own; what is not installed is left out until it is", async () => {
  const directory = await mkdtemp(join(tmpdir(), "espalier-peers-"));
  const network = cifarResNet.initialize(cifarResNet.presets["resnet20-cifar10"], new Random(0));
  await saveModel(network, join(directory, "saved"));
  await rename(
    join(directory, "saved/model.safetensors"),
    join(directory, "cifar10_resnet20-4118986f.pt"),
  );
  const lines: string[] = [];
  const bench = {
    families: [cifarResNet],
    timing: { machine: { processor: "none", threads: 3, runtime: "none" } },
    models: [directory],
    results: join(directory, "results"),
    openTask: async () => ({ train: () => noiseSamples(network, 8, 1) }),
    log: (line: string) => lines.push(line),
  } as unknown as Bench;
  const run: string[] = [];
  const installed = new Set(["exact", "probe", "hutchinson"]);
  let failing: string | undefined;
  const rows = { "conv1.weight": [1, 2, 3, 4], "conv2.weight": [5] };
  const runner = ((_program: Program, [method]: readonly string[]) => {
    run.push(method);
    if (method === failing) throw new Error("out of memory");
    if (!installed.has(method)) return { missing: "torch" };
    return {
      ...(["hap", "pyhessian"].includes(method) ? { torch: "2" } : {}),
      ...{ seconds: 1.5, peakBytes: 2e9 },
      rows:
        method === "pyhessian"
          ? null
          : method === "probe"
            ? { ...rows, "conv2.weight": [6] }
            : rows,
    };
  }) as typeof runProgram;

  await measurePeers("smoke", bench, "python3", runner);
  expect(run).toEqual(["exact", "probe", "backpack", "hutchinson", "hap", "pyhessian"]);
  expect(lines.filter((line) => line.includes("torch is not installed"))).toHaveLength(3);
  const files = () => readdir(join(bench.results, "peers"));
  expect(await files()).toHaveLength(3);
  const page = await peersSection(bench.results, ["smoke"]);
  expect(page).toContain("| Espalier, exact | – | 1.50 | 2.00 | 1.000 | 0.000 |");
  expect(page).toMatch(/\| Espalier, probe \| 1 \| 1\.50 \| 2\.00 \| 1\.000 \| 0\.\d*[1-9]\d* \|/);
  expect(page).toContain("| HAP's loop | 1 | not measured | | | |");

  // One that fails takes nothing away from those before it.
  for (const method of ["backpack", "hap", "pyhessian"]) installed.add(method);
  failing = "pyhessian";
  await expect(measurePeers("smoke", bench, "python3", runner)).rejects.toThrow("out of memory");
  expect(await files()).toHaveLength(5);
  failing = undefined;
  run.length = 0;
  await measurePeers("smoke", bench, "python3", runner);
  expect(run).toEqual(["exact", "pyhessian"]);
  run.length = 0;
  await measurePeers("smoke", bench, "python3", runner);
  expect(run).toEqual([]);
  const whole = await peersSection(bench.results, ["smoke"]);
  expect(whole).toContain("| PyHessian, whole trace alone | 1 | 1.50 | 2.00 | – | – |");
  expect(whole).toContain("PyTorch 2");
  await rm(directory, { recursive: true });
});

test("without a result the page says so", async () => {
  const directory = await mkdtemp(join(tmpdir(), "espalier-peers-"));
  expect(await peersSection(directory)).toContain("Not measured yet.");
  await rm(directory, { recursive: true });
});
