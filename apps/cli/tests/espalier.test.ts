import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync } from "node:fs";
import { cp, mkdir, readdir, readFile, rm, stat, truncate, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { readCheckpoint, toFloat32 } from "@espalier/checkpoints";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import {
  digests,
  espalier,
  type Finished,
  main,
  makeWorkspace,
  start,
  writeRecords,
} from "./harness.ts";

let workspace: Awaited<ReturnType<typeof makeWorkspace>>;
let model: string;
let data: string;
beforeAll(async () => {
  workspace = await makeWorkspace();
  model = join(workspace.path, "model");
  data = `cifar10:${join(workspace.path, "data")}`;
});
afterAll(() => workspace.remove());

const at = (...names: string[]) => join(workspace.path, ...names);
const pruning = (output: string, ...more: string[]) => [
  ...["prune", model, "--data", data, "-o", output],
  ...["--keep-macs", "0.6", "--implant", "0.3", "--round-to", "2", "--samples", "32"],
  ...applying,
  ...more,
];
/** By a plan that is given. */
const following = (output: string, plan: string, ...more: string[]) => [
  ...["prune", model, "--data", data, "-o", output, "--plan", plan],
  ...applying,
  ...more,
];
const applying = [
  ...["--calibration", "32", "--tune", "3", "--tune-batch-size", "32", "--hold-out", "40"],
  ...["--threads", "1", "--no-bars"],
];

function expectOneLine(result: Finished, code: number, message: RegExp): void {
  expect(result.stderr.trim()).toMatch(message);
  expect(
    result.stderr
      .trim()
      .split("\n")
      .filter((line) => line.startsWith("espalier:")),
  ).toHaveLength(1);
  expect(result.stderr).not.toMatch(/^\s+at /m);
  expect(result.stdout).toBe("");
  expect(result.code).toBe(code);
}

describe("help and usage", () => {
  test("every command has help with an example", async () => {
    const { stdout, code } = await espalier("--help");
    expect(code).toBe(0);
    const commands = [
      "inspect",
      "sensitivity",
      "prune",
      "evaluate",
      "bench",
      "export",
      "report",
      "train",
      "average",
      "data",
      "env",
    ];
    for (const command of commands) {
      expect(stdout).toContain(command);
      const help = await espalier(command, "--help");
      expect(help.code).toBe(0);
      expect(help.stdout).toMatch(/Examples?:\n {2}espalier /);
    }
  });

  test.each([
    [["wither"], /unknown command/],
    [["inspect"], /missing required argument/],
    [["evaluate", "x"], /--data/],
    [
      ["prune", "x", "--data", "cifar10", "-o", "y", "--metric", "beauty"],
      /Allowed choices are hessian-trace/,
    ],
    [
      ["prune", "x", "--data", "cifar10", "-o", "y", "--keep-macs", "2"],
      /Expected a number from 0 to 1/,
    ],
    [["prune", "x", "--data", "cifar10", "-o", "y", "--tune", "-1"], /Expected a whole number/],
    [["evaluate", "x", "--data", "cifar10", "--threads", "many"], /Expected a whole number/],
    [["export", "x", "--to", "y", "--memory-limit", "2 bytes"], /Expected a size such as 500MB/],
    [["inspect", "x", "--device", "cpu"], /unknown option '--device'/],
    [["report", "x", "--seed", "1"], /unknown option '--seed'/],
    [
      ["prune", "x", "--data", "cifar10", "-o", "y", "--keep-macs", "0.5", "--resume", "false"],
      /too many arguments/,
    ],
  ])("%j is wrong usage", async (args, message) => {
    const result = await espalier(...args);
    expect(result.code).toBe(2);
    expect(result.stderr).toMatch(message);
    expect(result.stdout).toBe("");
  });

  test("a budget that no scores could meet is refused before anything is scored", async () => {
    const output = at("unreachable");
    expectOneLine(
      await espalier("prune", model, "--data", data, "-o", output, "--keep-macs", "0.001"),
      1,
      /keep-macs 0.001: at least 0\.\d+ has to be kept/,
    );
    expect(existsSync(output)).toBe(false);
  });

  test.each([
    ["--distill", "0.5"],
    ["--tune-batch-size", "10"],
    ["--learning-rate", "0.1"],
  ])("%s is refused where nothing is tuned", async (option, value) => {
    expectOneLine(
      await espalier(
        ...["prune", model, "--data", data, "-o", at("never"), "--keep-macs", "0.5"],
        ...[option, value],
      ),
      2,
      new RegExp(`${option}: expected it with --tune, got it for a model that is not tuned`),
    );
  });

  test("hidden states are distilled from models that have them", async () => {
    const common = ["prune", model, "--data", data, "-o", at("never"), "--keep-macs", "0.5"];
    expectOneLine(
      await espalier(...common, "--tune", "1", "--distill-hidden", "0.5"),
      1,
      /distillation from hidden states: expected a model whose layers .* family cifar-resnet$/,
    );
    expectOneLine(
      await espalier(...common, "--tune", "1", "--distill", "0.6", "--distill-hidden", "0.5"),
      2,
      /expected shares of at most 1 together, got 0\.6 and 0\.5$/,
    );
  });

  test("a budget must be given, and only one", async () => {
    const common = ["prune", model, "--data", data, "-o", at("never")];
    expectOneLine(
      await espalier(...common),
      2,
      /expected one of --keep-params, --keep-macs, --keep-components and --keep-latency, got none/,
    );
    expectOneLine(
      await espalier(...common, "--keep-macs", "0.5", "--keep-params", "0.5"),
      2,
      /got 2/,
    );
    expectOneLine(
      await espalier(...common, "--keep-macs", "0.5", "--latency-batch", "8"),
      2,
      /--latency-batch: expected it with --keep-latency/,
    );
  });

  test("options that would do nothing are refused", async () => {
    const common = ["prune", model, "--data", data, "-o", at("never")];
    for (const [more, option] of [
      [["--keep-macs", "0.5"], "keep-macs"],
      [["--rounds", "2"], "rounds"],
      [["--no-whole-branches"], "no-whole-branches"],
      [["--scores", "runs/half"], "scores"],
      [["--keep-layer", "layer1"], "keep-layer"],
    ] as const) {
      expectOneLine(
        await espalier(...common, "--plan", "plan.json", ...more),
        2,
        new RegExp(`--${option}: expected it without --plan`),
      );
    }
    for (const [command, more, option] of [
      ["prune", ["--keep-macs", "0.5", "--draws", "50"], "draws"],
      ["sensitivity", ["--estimator", "hutchinson"], "estimator"],
      ["sensitivity", ["--temperature", "4"], "temperature"],
    ] as const) {
      expectOneLine(
        await espalier(command, ...common.slice(1), "--metric", "magnitude", ...more),
        2,
        new RegExp(
          `--${option}: expected it with --metric hessian-trace, removal, fitted-removal, got it with`,
        ),
      );
    }
  });

  test("an unknown device is refused with those present", async () => {
    expectOneLine(
      await espalier("evaluate", model, "--data", data, "--device", "abacus"),
      2,
      /device abacus: expected one of cpu.*, tfjs, .*tfjs-wasm/,
    );
  });

  test("env reports versions and devices as one JSON document", async () => {
    const { stdout, code } = await espalier("env", "--format", "json");
    expect(code).toBe(0);
    expect(JSON.parse(stdout)).toMatchObject({
      node: process.versions.node,
      devices: expect.arrayContaining(["cpu"]),
    });
  });

  // Shells start it by its first line, which sets how memory is handed out (decision 033).
  test.skipIf(process.platform === "win32")("the command starts by itself", () => {
    const { stdout, stderr, status } = spawnSync(main, ["--version"], { encoding: "utf8" });
    expect({ stderr, status }).toEqual({ stderr: "", status: 0 });
    expect(stdout).toMatch(/^\d+\.\d+\.\d+\n$/);
  });

  test("a reader that goes away is no error", async () => {
    const { child, done } = start(["--help"]);
    child.stdout?.destroy();
    const { code, stderr } = await done;
    expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
  });

  test.skipIf(process.platform !== "linux")("results that cannot be written are one", async () => {
    const { done } = start(["inspect", model], { shell: "exec > /dev/full" });
    expectOneLine(await done, 1, /^espalier: standard output: no space left to write$/);
  });
});

describe("reading models and data", () => {
  test("inspect describes a saved model", async () => {
    const { stdout, code } = await espalier("inspect", model, "--format", "json");
    expect(code).toBe(0);
    const inspection = JSON.parse(stdout);
    expect(inspection).toMatchObject({ family: "cifar-resnet", implants: 0, input: [3, 32, 32] });
    expect(inspection.layers[0]).toMatchObject({ layer: "conv1", shape: [4, 3, 3, 3] });
  });

  test("inspect takes weights inside a saved model, and networks without any", async () => {
    const saved = await espalier("inspect", join(model, "model.safetensors"), "--format", "json");
    const { parameters } = JSON.parse(
      (await espalier("inspect", model, "--format", "json")).stdout,
    );
    expect(JSON.parse(saved.stdout)).toMatchObject({ family: "cifar-resnet", parameters });
    const fresh = await espalier("inspect", "resnet20-cifar10", "--format", "json");
    expect(JSON.parse(fresh.stdout)).toMatchObject({ preset: "resnet20-cifar10" });
    expectOneLine(
      await espalier("evaluate", "resnet20-cifar10", "--data", data),
      1,
      /resnet20-cifar10: expected a model, got a network without weights; resnet20-cifar10:FILE/,
    );
  });

  test("evaluate counts every test image", async () => {
    const { stdout, code } = await espalier(
      "evaluate",
      model,
      "--data",
      data,
      "--format",
      "json",
      "--no-bars",
    );
    expect(code).toBe(0);
    expect(JSON.parse(stdout)).toMatchObject({ count: 60, verified: false });
  });

  test("classes of other names are taken in order, and the command says so once", async () => {
    const renamed = at("renamed");
    await cp(model, renamed, { recursive: true });
    const path = join(renamed, "config.json");
    const config = JSON.parse(await readFile(path, "utf8"));
    const id2label = Object.fromEntries([...Array(10).keys()].map((i) => [i, `fish ${i + 1}a`]));
    await writeFile(path, JSON.stringify({ ...config, id2label }));
    const { stderr, code } = await espalier("evaluate", renamed, "--data", data, "--no-bars");
    expect(code).toBe(0);
    expect(stderr.match(/taken for the model's in order/g)).toHaveLength(1);
    expect(stderr).toContain("airplane for fish 1a first; none is called the same");
    const same = await espalier("evaluate", model, "--data", data, "--no-bars");
    expect(same.stderr).not.toContain("taken for the model's in order");
  });

  test("sensitivity writes scores with errors", async () => {
    const output = at("scores");
    const { stdout, code } = await espalier(
      ...["sensitivity", model, "--data", data, "--samples", "16", "--metric", "hessian-trace"],
      ...["-o", output, "--format", "json", "--no-bars"],
    );
    expect(code).toBe(0);
    const record = JSON.parse(await readFile(join(output, "sensitivity.json"), "utf8"));
    expect(await readdir(output)).toContain("report.html");
    expectOneLine(
      await espalier("inspect", output),
      1,
      /scores: a run of sensitivity has scores and no model$/,
    );
    expect(JSON.parse(stdout)).toMatchObject({
      metric: "hessian-trace",
      estimator: "exact",
      samples: 16,
    });
    for (const { count, scores, standardErrors } of record.groups) {
      expect(scores).toHaveLength(count);
      expect(standardErrors).toHaveLength(count);
    }
  });

  test("a run takes the scores of another, and those alone that it would measure", async () => {
    const scoring = ["--data", data, "--samples", "16", "--hold-out", "40", "--no-bars"];
    const scored = await espalier("sensitivity", model, ...scoring, "-o", at("given"));
    expect(scored.code).toBe(0);
    const prune = (name: string, ...more: string[]) =>
      espalier(
        ...["prune", model, ...scoring, "--keep-macs", "0.5", "--round-to", "1"],
        ...["--scores", at("given"), "-o", at(name), ...more],
      );
    const { code, stderr } = await prune("taken");
    expect({ code, stderr }).toMatchObject({ code: 0 });
    const scores = (run: string) => readFile(at(run, "sensitivity.json"), "utf8");
    expect(await scores("taken")).toBe(await scores("given"));
    expectOneLine(
      await prune("other", "--seed", "1"),
      2,
      /given.run\.json: the run to take scores from had seed 0, now it is 1$/,
    );
  });

  test("scores are those of the checkpoint, the seed and the options asked for, or none", async () => {
    const copy = at("changing");
    await cp(model, copy, { recursive: true });
    const common = ["sensitivity", copy, "--data", data, "-o", at("kept"), "--no-bars"];
    const sensitivity = (...more: string[]) => espalier(...common, "--samples", "16", ...more);
    expect((await sensitivity()).code).toBe(0);
    const before = await digests(at("kept"));
    for (const [more, key] of [
      [["--seed", "1"], "seed"],
      [["--metric", "magnitude"], "settings"],
      [["--batch-size", "8"], "batchSize"],
    ] as const) {
      const refused = await sensitivity("--resume", ...more);
      expectOneLine(refused, 2, new RegExp(`run to be resumed had ${key}`));
    }
    const path = join(copy, "model.safetensors");
    const bytes = await readFile(path);
    bytes.writeFloatLE(0.5, bytes.length - 4);
    await writeFile(path, bytes);
    expectOneLine(await sensitivity("--resume"), 2, /run to be resumed had sha256/);
    expect(await digests(at("kept"))).toEqual(before);
  });

  test("a memory limit makes batches smaller, down to what one sample needs", async () => {
    const sensitivity = (limit: string) =>
      espalier(
        ...["sensitivity", model, "--data", data, "--samples", "16", "--memory-limit", limit],
        ...["-o", at(`within-${limit}`), "--no-bars"],
      );
    expect((await sensitivity("60MB")).code).toBe(0);
    expectOneLine(
      await sensitivity("100kB"),
      1,
      /memory: expected a program of at most 0\.1 MB, got one of/,
    );
  });

  test.each([
    ["nothing", async (_path: string) => {}, /no such file/],
    ["an empty file", (path: string) => writeFile(path, ""), /weights/],
    [
      "noise",
      (path: string) =>
        writeFile(
          path,
          new Uint8Array(5000).map((_, i) => (i * 7919) % 256),
        ),
      /weights/,
    ],
    [
      "a pickle that would run a command",
      // GLOBAL os system, MARK, "true", TUPLE, REDUCE, STOP
      (path: string) => writeFile(path, "\x80\x02cos\nsystem\n(X\x04\0\0\0truetR."),
      /weights/,
    ],
  ])("%s instead of a checkpoint is one line", async (_name, write, message) => {
    const path = at("weights.pt");
    await rm(path, { force: true });
    await write(path);
    expectOneLine(await espalier("inspect", path), 1, message);
  });

  test("a truncated checkpoint, and one of another network", async () => {
    const damaged = at("damaged");
    await cp(model, damaged, { recursive: true });
    const path = join(damaged, "model.safetensors");
    await truncate(path, (await stat(path)).size - 100);
    expectOneLine(await espalier("inspect", damaged), 1, /damaged\/model.safetensors/);
    expectOneLine(
      await espalier("inspect", `resnet56-cifar10:${join(model, "model.safetensors")}`),
      1,
      /model.safetensors: expected a resnet56-cifar10, got/,
    );
  });

  test("an exported configuration that is damaged", async () => {
    const damaged = at("damaged-config");
    await cp(model, damaged, { recursive: true });
    for (const own of [null, 7, {}, { model_type: "oak" }]) {
      await writeFile(join(damaged, "config.json"), JSON.stringify({ espalier: own }));
      expectOneLine(
        await espalier("inspect", damaged),
        1,
        /config\.json: espalier: expected an object with model_type|no model family recognises oak/,
      );
    }
  });

  test("NaN in a tensor, by name", async () => {
    const damaged = at("not-finite");
    await cp(model, damaged, { recursive: true });
    const path = join(damaged, "model.safetensors");
    const bytes = await readFile(path);
    bytes.writeFloatLE(Number.NaN, bytes.length - 4);
    await writeFile(path, bytes);
    expectOneLine(
      await espalier("inspect", damaged),
      1,
      /tensor \S+: expected finite numbers, got NaN/,
    );
  });

  test.each([
    [
      "files of the wrong size",
      async (path: string) => truncate(join(path, "test_batch.bin"), 5000),
      /test_batch.bin/,
    ],
    [
      "labels out of range",
      async (path: string) => {
        const bytes = await readFile(join(path, "data_batch_2.bin"));
        bytes[3073] = 10;
        await writeFile(join(path, "data_batch_2.bin"), bytes);
      },
      /data_batch_2.bin.*10/,
    ],
    [
      "a missing file",
      async (path: string) => rm(join(path, "data_batch_3.bin")),
      /data_batch_3.bin/,
    ],
  ])("%s in the data", async (name, damage, message) => {
    const path = at(`data ${name}`);
    await writeRecords(path, 20);
    await damage(path);
    expectOneLine(
      await espalier("evaluate", model, "--data", `cifar10:${path}`, "--no-bars"),
      1,
      message,
    );
  });

  test("an unknown data set", async () => {
    expectOneLine(
      await espalier("evaluate", model, "--data", "imagenot"),
      2,
      /imagenot.*expected cifar10/,
    );
  });
});

describe("prune", () => {
  let finished: Finished;
  beforeAll(async () => {
    finished = await espalier(...pruning(at("run"), "--format", "json"));
  });

  test("runs all stages and prints one JSON document", async () => {
    expect(finished.stderr).toMatch(/epoch 3\/3/);
    expect(finished.code).toBe(0);
    const result = JSON.parse(finished.stdout);
    expect(result.plan.after.macs / result.plan.before.macs).toBeLessThanOrEqual(0.6);
    expect(result.evaluation.tuned.count).toBe(60);
    expect(result.history).toHaveLength(3);
    expect(result.latency.batches[1].pruned.median).toBeGreaterThan(0);
    const files = await readdir(at("run"));
    expect(files).toEqual(
      expect.arrayContaining([
        "run.json",
        "sensitivity.json",
        "plan.json",
        "budgets.json",
        "pruned",
        "model",
        "export",
        "report.html",
      ]),
    );
    expect(files.filter((name) => /partial|training\.safetensors/.test(name))).toEqual([]);
  });

  test("the run is a source; its export is smaller; the report can be made again", async () => {
    const inspection = JSON.parse(
      (await espalier("inspect", at("run"), "--format", "json")).stdout,
    );
    const result = JSON.parse(finished.stdout);
    expect(inspection.macs).toBe(result.plan.after.macs);
    expect(inspection.parameters).toBe(result.plan.after.parameters);
    const { code } = await espalier("export", at("run"), "--to", at("exported"));
    expect(code).toBe(0);
    expect((await readdir(at("exported"))).sort()).toEqual([
      ...["README.md", "config.json", "model.py", "model.safetensors", "onnx"],
      ...["preprocessor_config.json", "pruning.json"],
    ]);
    expect(await readdir(at("run", "export", "pruned", "onnx"))).toEqual([
      ...["model.onnx", "model_fp16.onnx", "model_quantized.onnx"],
    ]);
    const pruning = JSON.parse(
      await readFile(at("run", "export", "pruned", "pruning.json"), "utf8"),
    );
    for (const group of Object.values<Record<string, number[]>>(pruning.rounds[0].groups)) {
      const { kept, implanted, removed, scores, standardErrors } = group;
      const numbers = [...kept, ...implanted, ...removed].sort((a, b) => a - b);
      expect(numbers).toEqual(scores.map((_, i) => i));
      expect(standardErrors).toHaveLength(scores.length);
    }
    for (const [name, sha256] of Object.entries(pruning.files)) {
      const bytes = await readFile(at("run", "export", "pruned", name));
      expect(createHash("sha256").update(bytes).digest("hex")).toBe(sha256);
    }
    const card = await readFile(at("exported", "README.md"), "utf8");
    expect(card).toMatch(/^library_name: transformers\.js$/m);
    expect(card).toMatch(/^- pruned$/m);
    expect(card).toContain("Multiply-accumulates");
    expect(card).not.toContain(workspace.path);
    const size = async (path: string) => (await stat(path)).size;
    expect(await size(at("exported", "model.safetensors"))).toBeLessThan(
      await size(join(model, "model.safetensors")),
    );
    const evaluated = await espalier(
      "evaluate",
      at("exported"),
      "--data",
      data,
      "--format",
      "json",
      "--no-bars",
    );
    expect(JSON.parse(evaluated.stdout).accuracy).toBe(result.evaluation.tuned.accuracy);
    expect((await espalier("report", at("run"))).code).toBe(0);
  });

  test("implants do not begin as zeros", async () => {
    const { tensors } = await readCheckpoint(at("run", "pruned", "model.safetensors"));
    const implants = [...tensors].filter(([name]) => name.endsWith(".implant.weight"));
    expect(implants).not.toEqual([]);
    for (const [name, tensor] of implants) {
      expect(
        toFloat32(tensor).some((weight) => weight !== 0),
        name,
      ).toBe(true);
    }
  });

  test("the same seed gives the same bytes, whatever the timing of threads", async () => {
    const again = await espalier(...pruning(at("again")));
    expect(again.code).toBe(0);
    expect(await digests(at("again"))).toEqual(await digests(at("run")));
    for (const name of ["threads-1", "threads-2"]) {
      expect((await espalier(...pruning(at(name), "--threads", "2"))).code).toBe(0);
    }
    expect(await digests(at("threads-2"))).toEqual(await digests(at("threads-1")));
    const other = await espalier(...pruning(at("seeded"), "--seed", "1"));
    expect(other.code).toBe(0);
    expect(await digests(at("seeded"))).not.toEqual(await digests(at("run")));
  });

  test("a directory that is not empty is left alone", async () => {
    await mkdir(at("full"), { recursive: true });
    await writeFile(at("full", "precious"), "x");
    expectOneLine(
      await espalier(...pruning(at("full"))),
      1,
      /full: expected an empty or new directory, found 1 entries/,
    );
    expectOneLine(
      await espalier(...pruning(at("full"), "--overwrite")),
      1,
      /expected an empty or new directory/,
    );
    expect(await readdir(at("full"))).toEqual(["precious"]);
    expectOneLine(
      await espalier(...pruning(at("run"))),
      1,
      /expected an empty or new directory.*--resume/,
    );
    expectOneLine(
      await espalier("export", model, "--to", at("full")),
      1,
      /expected an empty or new directory/,
    );
  });

  test("a run is overwritten with its reports, but not by what comes of it", async () => {
    expect((await espalier(...pruning(at("again"), "--overwrite"))).code).toBe(0);
    expect(await digests(at("again"))).toEqual(await digests(at("run")));
    const before = await digests(at("again"));
    const [, , ...options] = pruning(at("again"), "--overwrite");
    expectOneLine(
      await espalier("prune", at("again"), ...options),
      2,
      /again: expected a directory without .*model\.safetensors, which is read/,
    );
    expectOneLine(
      await espalier("export", at("again"), "--to", at("again"), "--overwrite"),
      2,
      /again: expected a directory without .*model\.safetensors, which is read/,
    );
    expect(await digests(at("again"))).toEqual(before);
    const exporting = ["--to", at("exported"), "--overwrite"];
    expectOneLine(await espalier("export", at("exported"), ...exporting), 2, /which is read/);
    expect((await espalier("export", at("run"), ...exporting)).code).toBe(0);
    expect(await readFile(at("exported", "README.md"), "utf8")).toContain("Multiply-accumulates");
  });

  test("a run with other settings cannot be resumed, a finished one can", async () => {
    expectOneLine(
      await espalier(...pruning(at("run"), "--resume", "--seed", "3")),
      2,
      /run.json: the run to be resumed had settings\.seed 0, now it is 3/,
    );
    const before = await digests(at("run"));
    const resumed = await espalier(...pruning(at("run"), "--resume", "--format", "json"));
    expect(resumed.code).toBe(0);
    expect(await digests(at("run"))).toEqual(before);
    expect(JSON.parse(resumed.stdout).evaluation).toEqual(JSON.parse(finished.stdout).evaluation);
  });

  test("an edited plan is followed; one that does not fit is refused by name", async () => {
    const plan = JSON.parse(await readFile(at("run", "plan.json"), "utf8"));
    const [name] = Object.keys(plan.groups);
    plan.groups[name] = { ...plan.groups[name], prune: [0], implant: [] };
    await writeFile(at("edited.json"), JSON.stringify(plan));
    const followed = await espalier(
      ...following(at("edited"), at("edited.json"), "--format", "json"),
    );
    expect(followed.code).toBe(0);
    const config = JSON.parse(await readFile(at("edited", "model", "config.json"), "utf8"));
    expect(config.pruning.channels[name]).not.toContain(0);
    plan.groups[name].prune = [99];
    await writeFile(at("edited.json"), JSON.stringify(plan));
    const refused = await espalier(...following(at("refused"), at("edited.json")));
    expectOneLine(refused, 1, /group \S+: expected component numbers below \d+, got 99/);
  });

  test("in several rounds", async () => {
    const rounds = await espalier(
      ...pruning(at("rounds"), "--rounds", "3", "--tune", "1", "--format", "json"),
    );
    expect(rounds.code).toBe(0);
    const { plan } = JSON.parse(rounds.stdout);
    const inspection = JSON.parse(
      (await espalier("inspect", at("rounds"), "--format", "json")).stdout,
    );
    const dense = JSON.parse((await espalier("inspect", model, "--format", "json")).stdout);
    expect(inspection.macs / dense.macs).toBeLessThanOrEqual(0.6);
    expect(inspection.macs).toBe(plan.after.macs);
    expect(await readdir(at("rounds", "rounds"))).toEqual(["1", "2", "3"]);
  });

  test("a full disk is named and leaves nothing half-written", async () => {
    // No file may grow beyond 16 blocks of 512 bytes: the first large one fails.
    const { done } = start(pruning(at("disk")), { shell: "ulimit -f 16" });
    const result = await done;
    expectOneLine(result, 1, /no space left to write/);
    // Whatever has its final name is whole: the run goes on from it.
    expect((await espalier(...pruning(at("disk"), "--resume"))).code).toBe(0);
    expect(await digests(at("disk"))).toEqual(await digests(at("run")));
  });
});

describe("interrupted", () => {
  let expected: Record<string, string>;
  beforeAll(async () => {
    expect((await espalier(...pruning(at("whole")))).code).toBe(0);
    expected = await digests(at("whole"));
  });

  test("by Ctrl-C it ends with 130, and resumes to the same files", async () => {
    const { child, done } = start(pruning(at("polite")));
    child.stderr?.on("data", (text: string) => {
      if (text.includes("epoch 1/3")) child.kill("SIGINT");
    });
    const stopped = await done;
    expect(stopped.code).toBe(130);
    expect(stopped.stderr).toMatch(/espalier: interrupted/);
    expect(await readdir(at("polite"))).toContain("training.safetensors");
    expect((await espalier(...pruning(at("polite"), "--resume"))).code).toBe(0);
    expect(await digests(at("polite"))).toEqual(expected);
  });

  test("by kill -9 at any moment, it resumes to the same files", async () => {
    const begun = performance.now();
    expect((await espalier(...pruning(at("timed")))).code).toBe(0);
    const duration = performance.now() - begun;
    const trials = 4;
    let kills = 0;
    for (let trial = 0; trial < trials; trial++) {
      const path = at(`killed-${trial}`);
      for (let attempt = 0; attempt < 12; attempt++) {
        const { child, done } = start(pruning(path, "--resume"));
        // Sooner and later moments, surely before the end at first; the last attempt is left alone.
        const anywhere = ((attempt * trials + trial) * 0.6180339887) % 1;
        const moment = attempt === 0 ? 0.1 + 0.4 * anywhere : anywhere;
        const timer =
          attempt < 6 ? setTimeout(() => child.kill("SIGKILL"), moment * duration) : undefined;
        const { code, signal } = await done;
        clearTimeout(timer);
        if (signal === "SIGKILL") kills++;
        if (code === 0) break;
        if (signal === null) expect.fail(`attempt ${attempt} failed`);
      }
      expect(await digests(path)).toEqual(expected);
    }
    expect(kills).toBeGreaterThanOrEqual(trials);
  });
});

describe("average", () => {
  test("the mean of two models, which is a source", async () => {
    const to = at("mean");
    const args = ["average", model, model, "--data", data, "--calibration", "64", "--to", to];
    expect((await espalier(...args, "--no-bars")).code).toBe(0);
    expect((await espalier("inspect", to)).code).toBe(0);
    expectOneLine(await espalier(...args), 1, /mean: expected an empty or new directory/);
  });
});

describe("train", () => {
  test("a network from scratch, resumable", async () => {
    const args = [
      "train",
      "resnet20-cifar10",
      "--data",
      data,
      "--epochs",
      "1",
      "--train-batch-size",
      "100",
      "--no-bars",
    ];
    const result = await espalier(...args, "-o", at("trained"), "--format", "json");
    expect(result.code).toBe(0);
    expect(JSON.parse(result.stdout).history).toHaveLength(1);
    const inspection = await espalier("inspect", at("trained"), "--format", "json");
    expect(JSON.parse(inspection.stdout).preset).toBe("resnet20-cifar10");
    expectOneLine(
      await espalier(...args.slice(0, 1), "resnet21", ...args.slice(2), "-o", at("none")),
      1,
      /resnet21: no such file or directory; known networks are resnet20-cifar10/,
    );
  });

  test("a model further", async () => {
    const args = ["--data", data, "--epochs", "1", "--train-batch-size", "100", "--no-bars"];
    const result = await espalier("train", at("trained"), ...args, "-o", at("further"));
    expect(result.code).toBe(0);
    const read = async (name: string) => JSON.parse(await readFile(at(name), "utf8"));
    const [{ loss: first }] = await read("trained/training.json");
    const [{ loss }] = await read("further/training.json");
    expect(loss).toBeLessThan(first);
    expect((await read("further/run.json")).sha256).toMatch(/^[0-9a-f]{64}$/);
  });
});
