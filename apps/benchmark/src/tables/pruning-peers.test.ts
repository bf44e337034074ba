import { readdirSync, readFileSync } from "node:fs";
import { mkdtemp, readdir, rename, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Random, sizeOfModel } from "@espalier/core";
import { openTask, saveModel, type Task } from "@espalier/pipeline";
import { cifarResNet } from "@espalier/vision";
import { afterAll, beforeAll, expect, test } from "vitest";
import type { Program, runProgram } from "../program.ts";
import type { Bench } from "./measure.ts";
import {
  measurePruningPeers,
  type PruningCase,
  pruningPeersSection,
  writeCifar10,
} from "./pruning-peers.ts";

const shape = [3, 32, 32] as const;
const classes = "airplane automobile bird cat deer dog frog horse ship truck".split(" ");

/** Images of random bytes. */
function randomImages(count: number, seed: number) {
  const random = new Random(seed);
  const bytes = Uint8Array.from({ length: count * 3072 }, () => random.integer(256));
  const labels = Int32Array.from({ length: count }, () => random.integer(10));
  const samples = ({ preprocessing: { mean, std } }: { preprocessing: Normalization }) => ({
    count,
    batch: async (indices: ArrayLike<number>) => {
      const chosen = Array.from(indices);
      const pixels = chosen.flatMap((index) =>
        Array.from(bytes.subarray(3072 * index, 3072 * (index + 1)), (byte, i) => {
          const channel = Math.floor(i / 1024);
          return (byte / 255 - mean[channel]) / std[channel];
        }),
      );
      return {
        feeds: { pixel_values: Float32Array.from(pixels) },
        labels: Int32Array.from(chosen, (index) => labels[index]),
      };
    },
  });
  return { bytes, labels, samples };
}
interface Normalization {
  readonly mean: readonly number[];
  readonly std: readonly number[];
}

let directory: string;
beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), "espalier-pruning-peers-"));
});
afterAll(() => rm(directory, { recursive: true }));

const train = randomImages(23, 1);
const testing = randomImages(4, 2);
const task = {
  classes,
  counts: { train: 23, test: 4 },
  train: train.samples,
  test: testing.samples,
} as unknown as Task;

test("what programs read are the images of the task, byte by byte, in their order", async () => {
  const path = join(directory, "cifar10");
  await writeCifar10(path, task, shape);
  const { counts, ...read } = await openTask(`cifar10:${path}`);
  expect(counts).toEqual({ train: 23, test: 4 });
  const plain = {
    preprocessing: { kind: "image" as const, shape, mean: [0, 0, 0], std: [1, 1, 1] },
    classes,
  };
  const { feeds, labels } = await read.train(plain).batch([...Array(23).keys()]);
  expect(Array.from(labels)).toEqual([...train.labels]);
  const pixels = Float32Array.from(feeds.pixel_values as Float32Array, (value) => 255 * value);
  expect([...pixels.map(Math.round)]).toEqual([...train.bytes]);
  const judged = await read.test(plain).batch([3]);
  expect(Array.from(judged.labels)).toEqual([testing.labels[3]]);
});

test("each program is run once, with the same images and rates; what is not installed is left out until it is", async () => {
  const network = cifarResNet.initialize(cifarResNet.presets["resnet20-cifar10"], new Random(0));
  await saveModel(network, join(directory, "saved"));
  await rename(
    join(directory, "saved/model.safetensors"),
    join(directory, "cifar10_resnet20-4118986f.pt"),
  );
  const dense = { ...sizeOfModel(network), accuracy: 0.75 };
  const lines: string[] = [];
  const bench = {
    families: [cifarResNet],
    timing: { machine: { processor: "none", threads: 3, runtime: "none" } },
    models: [directory],
    results: join(directory, "results"),
    openTask: async () => task,
    log: (line: string) => lines.push(line),
  } as unknown as Bench;
  const cases: (Program & { given: PruningCase; files: string[] })[] = [];
  let installed = false;
  let counted = dense;
  const runner = ((program: Program, [path]: readonly string[]) => {
    if (!program.ours && !installed) return { missing: "torch-pruning" };
    const given = JSON.parse(readFileSync(join(path, "case.json"), "utf8")) as PruningCase;
    cases.push({ ...program, given, files: readdirSync(path) });
    return {
      ...{ seconds: 1, peakBytes: 2e9, tuningSeconds: 3, tuned: 0.7, dense: counted },
      pruned: { parameters: 1000, macs: dense.macs / 2, accuracy: 0.5 },
    };
  }) as typeof runProgram;

  await measurePruningPeers("smoke", bench, "python3", runner);
  expect(cases.map(({ label }) => label)).toEqual([
    "Espalier, magnitude",
    "Espalier, gradient",
    "Espalier, removal",
    "Espalier, hessian-trace",
  ]);
  expect(lines.filter((line) => line.includes("torch-pruning is not installed"))).toHaveLength(3);
  const page = await pruningPeersSection(bench.results, ["smoke"]);
  expect(page).toContain("| Espalier, gradient | 1.0 | – | 2.00 | 0.001 |");
  expect(page).toContain("| 50.00 | 70.00 | −5.00 | 3 |");
  expect(page).toContain("| Torch-Pruning, Taylor | not measured |");

  // Now it is; a program that counts the dense network otherwise is not compared with.
  installed = true;
  counted = { ...dense, macs: dense.macs + 1 };
  await expect(measurePruningPeers("smoke", bench, "python3", runner)).rejects.toMatchObject({
    code: "mismatched-model",
  });
  counted = dense;
  cases.length = 0;
  await measurePruningPeers("smoke", bench, "python3", runner);
  expect(cases.map(({ given }) => given.importance)).toEqual(["magnitude", "taylor", "hessian"]);
  const [{ given, files }] = cases;
  expect(given).toMatchObject({ threads: 3, keep: 0.5, samples: 16, tune: { batchSize: 64 } });
  expect(files).toEqual(expect.arrayContaining(["data_batch_5.bin", "test_batch.bin"]));
  cases.length = 0;
  await measurePruningPeers("smoke", bench, "python3", runner);
  expect(cases).toEqual([]);
  expect(await readdir(join(bench.results, "peers"))).toHaveLength(7);
});
