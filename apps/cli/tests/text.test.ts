/** The command on a tiny encoder for text and a task of two words. */
import { cp, mkdir, mkdtemp, readdir, readFile, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Random } from "@espalier/core";
import { bert } from "@espalier/nlp";
import { saveModel } from "@espalier/pipeline";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { digests, espalier, start } from "./harness.ts";

const words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "good", "bad", "a", "film"];
let root: string;
const at = (name: string) => join(root, name);

beforeAll(async () => {
  root = await mkdtemp(join(tmpdir(), "espalier-text-"));
  const config = {
    model_type: "bert",
    vocab_size: words.length,
    hidden_size: 8,
    num_hidden_layers: 2,
    num_attention_heads: 4,
    intermediate_size: 16,
    max_position_embeddings: 32,
    type_vocab_size: 2,
    hidden_act: "gelu",
  };
  await saveModel(bert.initialize(config, new Random(0)), at("encoder"));
  await writeFile(at("encoder/vocab.txt"), `${words.join("\n")}\n`);
  await mkdir(at("data"));
  const rows = (count: number) =>
    Array.from({ length: count }, (_, i) =>
      i % 2 === 0 ? "a good film\t1\n" : "a film bad\t0\n",
    ).join("");
  await writeFile(at("data/train.tsv"), `sentence\tlabel\n${rows(64)}`);
  await writeFile(at("data/dev.tsv"), `sentence\tlabel\n${rows(10)}`);
});
afterAll(() => rm(root, { recursive: true, force: true }));

describe("an encoder without a head", () => {
  test("is described, and cannot be judged yet", async () => {
    const { stdout } = await espalier("inspect", at("encoder"), "--format", "json");
    expect(JSON.parse(stdout)).toMatchObject({
      family: "bert",
      classes: [],
      input: [32],
      kinds: { head: 8, neuron: 32 },
    });
    const data = `glue/sst2:${at("data")}`;
    const { code, stderr } = await espalier("evaluate", at("encoder"), "--data", data);
    expect(code).toBe(1);
    expect(stderr).toMatch(/^espalier: .*without a head for any task.*--tune-dense\n$/);
  });

  test("is not pruned without --tune-dense, and nothing is left behind", async () => {
    const data = `glue/sst2:${at("data")}`;
    const budget = ["--keep-components", "0.5", "-o", at("headless")];
    const { code, stderr } = await espalier("prune", at("encoder"), "--data", data, ...budget);
    expect(code).toBe(1);
    expect(stderr).toMatch(/^espalier: .*without a head for any task.*--tune-dense\n$/);
    await expect(stat(at("headless"))).rejects.toThrow(/ENOENT/);
  });

  test("is tuned, pruned, tuned again, judged and exported", async () => {
    const data = `glue/sst2:${at("data")}`;
    const { code, stdout, stderr } = await espalier(
      ...["prune", at("encoder"), "--data", data, "--keep-components", "0.5", "--round-to", "1"],
      ...[
        "--tune-dense",
        "30",
        "--tune",
        "2",
        "--tune-batch-size",
        "16",
        "--learning-rate",
        "0.01",
      ],
      ...["--distill", "0.25", "--distill-hidden", "0.25"],
      ...["--samples", "16", "--hold-out", "0", "-o", at("run"), "--format", "json", "--no-bars"],
    );
    expect(stderr).not.toMatch(/espalier:/);
    expect(code).toBe(0);
    const { plan, evaluation, sizes } = JSON.parse(stdout);
    expect(evaluation.dense.accuracy).toBe(1);
    expect(plan.after.components).toBeLessThanOrEqual(20);
    expect(sizes.pruned.macs).toBeLessThan(sizes.dense.macs);
    const { pruning } = JSON.parse(await readFile(at("run/model/config.json"), "utf8"));
    // Each kind loses the same share.
    const kept = (kind: string, whole: number) =>
      [0, 1].reduce((sum, layer) => sum + (pruning[kind][layer]?.length ?? whole), 0);
    expect(kept("heads", 4)).toBe(4);
    expect(kept("neurons", 16)).toBe(16);

    const judged = await espalier("evaluate", at("run"), "--data", data, "--format", "json");
    expect(JSON.parse(judged.stdout).accuracy).toBe(evaluation.tuned.accuracy);
    const exported = await espalier(
      ...["evaluate", at("run"), "--data", data, "--precision", "fp32", "--format", "json"],
    );
    const { accuracy, precision } = JSON.parse(exported.stdout);
    expect({ accuracy, precision }).toEqual({
      accuracy: evaluation.tuned.accuracy,
      precision: "fp32",
    });
    const latency = ["--keep-latency", "0.5", "-o", at("late")];
    const late = await espalier("prune", at("run"), "--data", data, ...latency);
    expect(late.code).toBe(2);
    expect(late.stderr).toMatch(/^espalier: keep-latency: expected a model of images.*texts.*\n$/);

    for (const more of [[], ["--overwrite"]]) {
      expect((await espalier("export", at("run"), "--to", at("out"), ...more)).code).toBe(0);
    }
    expect((await readdir(at("out"))).sort()).toEqual([
      "README.md",
      "compact",
      "config.json",
      "model.safetensors",
      "onnx",
      "pruning.json",
      "tokenizer.json",
      "tokenizer_config.json",
      "vocab.txt",
    ]);
    expect((await readdir(at("out/compact"))).sort()).toEqual([
      ...["config.json", "model.py", "model.safetensors"],
    ]);
    const own = JSON.parse(await readFile(at("run/model/config.json"), "utf8"));
    expect(JSON.parse(await readFile(at("out/compact/config.json"), "utf8"))).toEqual(own);
    const { pruning: _, ...dense } = own;
    expect(JSON.parse(await readFile(at("out/config.json"), "utf8"))).toEqual({
      ...dense,
      model_type: "bert",
      architectures: ["BertForSequenceClassification"],
      id2label: { 0: "negative", 1: "positive" },
    });
    expect(JSON.parse(await readFile(at("out/tokenizer_config.json"), "utf8"))).toEqual({
      pad_token: "[PAD]",
      model_max_length: 32,
    });
    expect(await readFile(at("out/README.md"), "utf8")).toMatch(
      /pipeline\("text-classification".*compact\/.*from transformers import pipeline.*`compact\/model\.py`/s,
    );
    // An export is a source.
    const again = await espalier("evaluate", at("out"), "--data", data, "--format", "json");
    expect(JSON.parse(again.stdout).accuracy).toBe(evaluation.tuned.accuracy);
  });

  test("has heads that go on attending at a lower rank", async () => {
    const data = `glue/sst2:${at("data")}`;
    const prune = (rank: string) =>
      espalier(
        ...["prune", at("run/dense"), "--data", data, "--keep-components", "0.5"],
        ...["--round-to", "1", "--implant", "0.5", "--implant-rank", rank, "--samples", "16"],
        ...["--hold-out", "0", "-o", at("implants"), "--format", "json", "--no-bars"],
      );
    // Before anything is done.
    const refused = await prune("2");
    expect(refused.code).toBe(2);
    expect(refused.stderr).toMatch(
      /^espalier: implant-rank: expected a whole number from 1 to 1, .* have 2 rows, got 2\n$/,
    );
    const { code, stdout } = await prune("1");
    expect(code).toBe(0);
    const { plan, evaluation } = JSON.parse(stdout);
    expect(plan.after.implants).toBe(2);
    const { pruning } = JSON.parse(await readFile(at("implants/model/config.json"), "utf8"));
    const ranks = Object.values(pruning.implants as Record<string, Record<string, number[]>>);
    expect(ranks.flatMap((layer) => Object.keys(layer))).toContain("1");
    expect(ranks.flatMap((layer) => Object.values(layer).flat())).toHaveLength(2);
    const judged = await espalier("evaluate", at("implants"), "--data", data, "--format", "json");
    expect(JSON.parse(judged.stdout).accuracy).toBe(evaluation.tuned.accuracy);

    expect((await espalier("export", at("implants"), "--to", at("small"))).code).toBe(0);
    const { rounds } = JSON.parse(await readFile(at("small/pruning.json"), "utf8"));
    const groups = Object.values(rounds[0].groups as Record<string, Record<string, unknown>>);
    for (const { implanted, implantRank } of groups) {
      expect(implantRank).toBe((implanted as number[]).length > 0 ? 1 : undefined);
    }
    const report = await readFile(at("implants/report.html"), "utf8");
    expect(report).toContain("attending at a lower rank, 1:");
    expect(report.match(/replaced by an implant, rank 1<\/title>/g)).toHaveLength(2);
    expect(report).toContain(
      '<p class="lead">bert (hidden size 8, hidden layers 2, attention heads 4) for glue/sst2',
    );
  });
});

test("by kill -9 in the midst of its trainings a run resumes to the same files", async () => {
  // Texts of several lengths, so that batches differ and programs are several.
  const texts = (count: number) =>
    Array.from({ length: count }, (_, i) => {
      const good = i % 2 === 0;
      const filler = "a film ".repeat(i % 12);
      return `${filler}${good ? "good" : "bad"} film\t${good ? 1 : 0}\n`;
    }).join("");
  await mkdir(at("lengths"));
  await writeFile(at("lengths/train.tsv"), `sentence\tlabel\n${texts(72)}`);
  await writeFile(at("lengths/dev.tsv"), `sentence\tlabel\n${texts(12)}`);
  const args = (path: string) => [
    ...["prune", at("encoder"), "--data", `glue/sst2:${at("lengths")}`, "--keep-components", "0.5"],
    ...["--round-to", "1", "--tune-dense", "3", "--tune", "4", "--tune-batch-size", "8"],
    ...["--distill", "0.25", "--distill-hidden", "0.25", "--samples", "16", "--hold-out", "8"],
    ...["--threads", "1", "--no-bars", "-o", path, "--resume"],
  ];
  expect((await espalier(...args(at("whole")))).code).toBe(0);
  // Of the dense training, then of the tuning; at once or a little later, in the next epoch.
  const moments = [
    ["epoch 1/3", 0],
    ["epoch 2/3", 40],
    ["epoch 1/4", 0],
    ["epoch 3/4", 20],
  ] as const;
  for (const [line, delay] of moments) {
    const { child, done } = start(args(at("killed")));
    child.stderr?.on("data", (text: string) => {
      if (text.includes(line)) setTimeout(() => child.kill("SIGKILL"), delay);
    });
    expect((await done).signal, line).toBe("SIGKILL");
  }
  expect((await espalier(...args(at("killed")))).code).toBe(0);
  const expected = await digests(at("whole"));
  expect(expected).toHaveProperty(["dense/model.safetensors"]);
  expect(expected).toHaveProperty(["model/model.safetensors"]);
  expect(await digests(at("killed"))).toEqual(expected);
});

test("texts of one's own, by name or by number, are judged as those of a task are", async () => {
  const judge = async (data: string) => {
    const args = ["evaluate", at("run"), "--data", data, "--format", "json", "--no-bars"];
    const { stdout } = await espalier(...args);
    const { accuracy, loss } = JSON.parse(stdout);
    return { accuracy, loss };
  };
  const expected = await judge(`glue/sst2:${at("data")}`);
  for (const [name, labels] of [
    ["named", ["negative", "positive"]],
    ["numbered", ["0", "1"]],
  ] as const) {
    await mkdir(at(name));
    for (const [half, file] of [
      ["train", "train.csv"],
      ["dev", "val.csv"],
    ]) {
      const rows = (await readFile(at(`data/${half}.tsv`), "utf8")).trim().split("\n").slice(1);
      const lines = rows.map((row) => {
        const [text, label] = row.split("\t");
        return `${labels[Number(label)]},"${text}"`;
      });
      await writeFile(at(`${name}/${file}`), `label,text\r\n${lines.join("\r\n")}`);
    }
    expect(await judge(`textfolder:${at(name)}`), name).toEqual(expected);
  }
});

describe("what does not fit together is refused in one line", () => {
  const rows = (extra: string) => `sentence\tlabel\n${"a good film\t1\n".repeat(8)}${extra}`;

  beforeAll(async () => {
    const config = JSON.parse(await readFile(at("encoder/config.json"), "utf8"));
    const judged = { ...config, head: { hidden: true, output: true }, num_labels: 2 };
    await saveModel(bert.initialize(judged, new Random(0)), at("judged"));
    await writeFile(at("judged/vocab.txt"), `${words.join("\n")}\n`);
    const change = async (name: string, changes: object, tokens = words) => {
      await cp(at("judged"), at(name), { recursive: true });
      const saved = JSON.parse(await readFile(at("judged/config.json"), "utf8"));
      await writeFile(at(`${name}/config.json`), JSON.stringify({ ...saved, ...changes }));
      await writeFile(at(`${name}/vocab.txt`), `${tokens.join("\n")}\n`);
    };
    await change("contradictory", { intermediate_size: 20 });
    await change("unsupported", { model_type: "t5" });
    await change("foreign-tokens", {}, [...words.slice(0, 4), "x", "y", ...words.slice(4)]);
    const texts = { long: `a ${"good ".repeat(40)}film\t1\n`, unknown: "a film\tneutral\n" };
    for (const [name, extra] of Object.entries(texts)) {
      await mkdir(at(name));
      for (const half of ["train", "dev"]) {
        await writeFile(at(`${name}/${half}.tsv`), rows(extra));
      }
    }
  });

  test.each([
    ["contradictory", "data", /tensor .*: expected shape \[20,8\], got \[16,8\]$/],
    ["unsupported", "data", /no model family recognises t5; known families are .*bert.*electra$/],
    ["foreign-tokens", "data", /test: row 1: expected tokens below 8, the vocab_size .*, got 8 /],
    ["judged", "long", /test: row 9: expected at most 32 tokens, the positions .*, got 44; /],
    [
      "judged",
      "unknown",
      /train\.tsv: row 9: label: expected negative or positive, got "neutral"$/,
    ],
  ])("%s with %s", async (source, data, message) => {
    const args = ["--data", `glue/sst2:${at(data)}`, "--threads", "1"];
    const { code, stdout, stderr } = await espalier("evaluate", at(source), ...args);
    expect(stderr).toMatch(/^espalier: [^\n]+\n$/);
    expect(stderr.trimEnd()).toMatch(message);
    expect({ code, stdout }).toEqual({ code: 1, stdout: "" });
  });
});
