import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { saveModel, type Task } from "@espalier/pipeline";
import { createOnnxExecutor } from "@espalier/runtime-onnx";
import { cifarResNet } from "@espalier/vision";
import { noiseSamples, tinyResNet } from "@espalier/vision/testing";
import { expect, test } from "vitest";
import {
  compareScores,
  type FidelityPreset,
  type FidelitySubject,
  fidelitySection,
  measureFidelity,
} from "./fidelity.ts";
import type { Bench } from "./measure.ts";
import { readTables } from "./table.ts";

test("scores are compared by rank, half, size and sign", () => {
  const reference = Float64Array.of(1, 2, 3, 4);
  expect(compareScores(reference, reference)).toEqual({
    components: 4,
    rankCorrelation: 1,
    overlap: 1,
    relativeError: 0,
    negative: 0,
  });
  const other = compareScores(Float64Array.of(4, -1, 3, 2), reference);
  // Ranks 3, 0, 2, 1 against 0, 1, 2, 3.
  expect(other.rankCorrelation).toBeCloseTo(1 - (6 * (9 + 1 + 0 + 4)) / (4 * 15), 12);
  expect(other.overlap).toBe(0.5);
  expect(other.relativeError).toBeCloseTo(Math.sqrt((9 + 9 + 0 + 4) / 30), 12);
  expect(other.negative).toBe(1);
});

test("every estimator is measured once; exact agrees with itself and probes come near", async () => {
  const directory = await mkdtemp(join(tmpdir(), "espalier-fidelity-"));
  const model = tinyResNet();
  await saveModel(model, join(directory, "tiny"));
  const subject: FidelitySubject = {
    ...{ name: "Tiny", source: "tiny", data: "noise", kind: "channel", samples: 16 },
    reference: { estimator: "exact", draws: 0 },
    estimators: [
      { estimator: "exact", draws: 0 },
      { estimator: "probe", draws: 60 },
      { estimator: "hutchinson", draws: 1 },
    ],
  };
  const preset: FidelityPreset = { description: "In seconds.", subjects: [subject] };
  const lines: string[] = [];
  const bench = {
    families: [cifarResNet],
    executor: createOnnxExecutor({ threads: 1 }),
    timing: { machine: { processor: "none", threads: 1, runtime: "none" } },
    models: [directory],
    results: join(directory, "results"),
    openTask: async () => ({ train: () => noiseSamples(model, 24, 1) }) as unknown as Task,
    log: (line: string) => lines.push(line),
  } as unknown as Bench;
  await measureFidelity("quick", bench, [], preset);
  const { text, files, curves } = await fidelitySection(bench.results, [], { quick: preset });
  // One seed of exact and of 60 draws, three of a single one.
  expect(text).toContain("5 of 5 cells measured");
  expect(text).toMatch(/\| exact \| [\d.]+ \| 1\.000 \| 1\.000 \| 0\.000 \| 0 \|/);
  const [, probe] = /\| probe, 60 draws \| [\d.]+ \| ([\d.]+) /.exec(text)!;
  expect(Number(probe)).toBeGreaterThan(0.9);
  expect([...files.keys()]).toEqual(["results/fidelity/quick-tiny.svg"]);
  const [{ path, plots }] = curves;
  expect(path).toEqual(["Fidelity of estimators", "quick", "Tiny"]);
  expect(plots[0].series.map(({ name }) => name)).toContain("probe");

  lines.length = 0;
  await measureFidelity("quick", bench, [], preset);
  expect(lines).toEqual(["fidelity, Tiny: 0 of 5 cells to be measured"]);

  // A long run is a reference with other signs than the cell of as many draws, and is made once.
  const drawn = (estimators: FidelitySubject["estimators"]): FidelityPreset => ({
    description: "In seconds.",
    subjects: [{ ...subject, reference: { estimator: "hutchinson", draws: 200 }, estimators }],
  });
  const many = { estimator: "hutchinson" as const, draws: 200 };
  lines.length = 0;
  await measureFidelity("quick", bench, [], drawn([many]));
  await measureFidelity("quick", bench, [], drawn([many, { estimator: "exact", draws: 0 }]));
  const references = lines.filter((line) => line.startsWith("quick-tiny-reference-"));
  expect(references).toHaveLength(1);
  const [, correlation] = /hutchinson-200.*rank correlation ([\d.]+),/.exec(lines.join("\n"))!;
  expect(Number(correlation)).toBeGreaterThan(0.5);
  expect(Number(correlation)).toBeLessThan(1);
  const compared = await fidelitySection(bench.results, [], { quick: drawn([many]) });
  expect(compared.text).toMatch(/the reference is `hutchinson` with 200 draws, [\d.]+ s, \d+ of/);
  await rm(directory, { recursive: true });
});

test("an encoder is the dense model of a table, and cells are known by how it was trained", async () => {
  const tables = await readTables(
    fileURLToPath(new URL("../../../../benchmarks/tables", import.meta.url)),
  );
  const { text } = await fidelitySection("nowhere", tables);
  // Two networks: exact, nine of up to 30 draws with three seeds, two of more. The encoder: 1 and nine.
  expect(text.match(/0 of \d+ cells measured/g)).toEqual(
    Array(2).fill(`0 of ${2 * (1 + 9 * 3 + 2) + 1 + 9 * 3} cells measured`),
  );
  await expect(fidelitySection("nowhere", [])).rejects.toThrow(
    "expected a table glue-heads on glue/sst2, found none",
  );
});
