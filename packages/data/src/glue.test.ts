import { existsSync } from "node:fs";
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { TextInput } from "@espalier/core";
import { parquetWriteBuffer } from "hyparquet-writer";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { glueTasks } from "./glue.ts";
import { openDataset } from "./open-dataset.ts";
import { textSamples } from "./text-samples.ts";

const words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "b", "c", "good", "bad", '"', "é"];

const vocab: Readonly<Record<string, number>> = Object.fromEntries(
  words.map((word, id) => [word, id]),
);

/** A model's input with one token for each of `words`. */
const input: TextInput = {
  kind: "text",
  maxLength: 64,
  truncates: true,
  ...{ vocabulary: words.length, types: 2 },
  padding: { token: 0, type: 0 },
  tokenizer: {
    config: {},
    json: {
      version: "1.0",
      added_tokens: [],
      normalizer: null,
      pre_tokenizer: { type: "WhitespaceSplit" },
      post_processor: {
        type: "TemplateProcessing",
        single: [
          { SpecialToken: { id: "[CLS]", type_id: 0 } },
          { Sequence: { id: "A", type_id: 0 } },
          { SpecialToken: { id: "[SEP]", type_id: 0 } },
        ],
        pair: [
          { SpecialToken: { id: "[CLS]", type_id: 0 } },
          { Sequence: { id: "A", type_id: 0 } },
          { SpecialToken: { id: "[SEP]", type_id: 0 } },
          { Sequence: { id: "B", type_id: 1 } },
          { SpecialToken: { id: "[SEP]", type_id: 1 } },
        ],
        special_tokens: {
          "[CLS]": { id: "[CLS]", ids: [2], tokens: ["[CLS]"] },
          "[SEP]": { id: "[SEP]", ids: [3], tokens: ["[SEP]"] },
        },
      },
      decoder: null,
      model: {
        type: "WordPiece",
        unk_token: "[UNK]",
        continuing_subword_prefix: "##",
        max_input_chars_per_word: 100,
        vocab,
      },
    },
  },
};

/** `input` whose tokenizer.json has other fields. */
function withTokenizer({ model, ...json }: { model?: object; post_processor?: null }): TextInput {
  const { tokenizer } = input as { tokenizer: { config: object; json: { model: object } } };
  const changed = { ...tokenizer.json, ...json, model: { ...tokenizer.json.model, ...model } };
  return { ...input, tokenizer: { ...tokenizer, json: changed } };
}

const sentencesOf = (ids: unknown) => Array.from(ids as BigInt64Array, (id) => words[Number(id)]);

let root: string;
beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), "glue-"));
});
afterEach(() => rm(root, { recursive: true }));

const write = (name: string, content: string | Uint8Array) => writeFile(join(root, name), content);

/** The samples of a half as words and labels. */
async function readAll(spec: string, half: "train" | "test" = "test") {
  const data = await openDataset(spec);
  const samples = data[half](input);
  const { feeds, labels, length } = await samples.batch([...Array(samples.count).keys()]);
  const all = sentencesOf(feeds.input_ids);
  return Array.from(labels, (label, i) => ({
    label,
    text: all
      .slice(i * length!, (i + 1) * length!)
      .filter((word) => word !== "[PAD]")
      .join(" "),
  }));
}

describe("files", () => {
  test("TSV: a byte order mark, single quotes and odd characters mean nothing", async () => {
    const header = "\uFEFFQuality\t#1 ID\t#2 ID\t#1 String\t#2 String";
    await write("train.tsv", `${header}\n1\t1\t2\ta " b\t" c\n`);
    await write("dev.tsv", `${header}\r\n0\t1\t2\té\u2028a\tb "\r\n1\t3\t4\ta\tb`);
    expect(await readAll(`glue/mrpc:${root}`, "train")).toEqual([
      { label: 1, text: '[CLS] a " b [SEP] " c [SEP]' },
    ]);
    expect(await readAll(`glue/mrpc:${root}`)).toEqual([
      { label: 0, text: '[CLS] é a [SEP] b " [SEP]' },
      { label: 1, text: "[CLS] a [SEP] b [SEP]" },
    ]);
  });

  test("CoLA has no header", async () => {
    await write("train.tsv", "x\t1\t\ta b\n");
    await write("dev.tsv", "x\t0\t*\tb a");
    expect(await readAll(`glue/cola:${root}`, "train")).toEqual([
      { label: 1, text: "[CLS] a b [SEP]" },
    ]);
    expect(await readAll(`glue/cola:${root}`)).toEqual([{ label: 0, text: "[CLS] b a [SEP]" }]);
  });

  test("lines of JSON, Parquet in parts, and the folder above", async () => {
    await mkdir(join(root, "RTE"));
    await write("RTE/train.jsonl", '{"sentence1":"a","sentence2":"b","label":"not_entailment"}\n');
    for (const part of [0, 1]) {
      const buffer = parquetWriteBuffer({
        columnData: [
          { name: "sentence1", data: ["a", `${["b", "c"][part]}`], type: "STRING" },
          { name: "sentence2", data: ["b", "c"], type: "STRING" },
          { name: "label", data: [1n, 0n], type: "INT64" },
        ],
      });
      await write(`RTE/validation-0000${part}-of-00002.parquet`, new Uint8Array(buffer));
    }
    expect(await readAll(`glue/rte:${root}`, "train")).toEqual([
      { label: 1, text: "[CLS] a [SEP] b [SEP]" },
    ]);
    expect((await readAll(`glue/rte:${root}`)).map(({ text, label }) => [text, label])).toEqual([
      ["[CLS] a [SEP] b [SEP]", 1],
      ["[CLS] b [SEP] c [SEP]", 0],
      ["[CLS] a [SEP] b [SEP]", 1],
      ["[CLS] c [SEP] c [SEP]", 0],
    ]);
  });

  test("the digest is of sentences and labels, whatever file they are in", async () => {
    const digest = async () => (await openDataset(`glue/rte:${root}`)).digest();
    const row = { sentence1: "a", sentence2: "b", label: 0 };
    await write("train.jsonl", JSON.stringify(row));
    await write("dev.jsonl", JSON.stringify(row));
    const before = await digest();
    expect(before).toMatch(/^[0-9a-f]{64}$/);
    await write("dev.jsonl", JSON.stringify({ ...row, label: 1 }));
    expect(await digest()).not.toBe(before);
    await write("dev.jsonl", JSON.stringify({ ...row, sentence2: "c" }));
    expect(await digest()).not.toBe(before);
    await rm(join(root, "dev.jsonl"));
    await write("dev.tsv", "sentence1\tsentence2\tlabel\na\tb\tentailment\n");
    expect(await digest()).toBe(before);
  });

  test("parts of which one is missing are refused, and a whole file goes before parts", async () => {
    const rows = '{"sentence1":"a","sentence2":"b","label":0}\n';
    await write("dev.jsonl", rows);
    await write("train-00000-of-00002.jsonl", rows);
    await expect(openDataset(`glue/rte:${root}`)).rejects.toThrow(
      /expected all parts of train\.jsonl, 2 by the name of the first, got 1/,
    );
    await write("train.jsonl", rows);
    expect((await openDataset(`glue/rte:${root}`)).counts.train).toBe(1);
  });

  test("scores are numbers to be predicted", async () => {
    for (const half of ["train", "dev"]) {
      await write(`${half}.tsv`, "sentence1\tsentence2\tscore\na\tb\t2.75\n");
    }
    expect((await openDataset(`glue/stsb:${root}`)).objective).toBe("regression");
    expect((await readAll(`glue/stsb:${root}`))[0].label).toBe(2.75);
  });

  test.each([
    ["sentence\tlabel\na\n", /dev\.tsv: line 2: expected 2 fields, got 1/],
    ["sentence\tlabel\na\t7\n", /dev\.tsv: row 1: label: expected negative or positive, got "7"/],
    ["sentence\tlabel\na\t\n", /row 1: label: expected negative or positive, got ""$/],
    ["sentence\tlabel\na\t \n", /row 1: label: expected negative or positive, got " "$/],
    ["text\tlabel\na\t1\n", /row 1: expected a column sentence, got text, label/],
    ["sentence\tlabel\n", /dev\.tsv: expected rows, got none/],
  ])("%j is refused", async (content, message) => {
    await write("train.tsv", "sentence\tlabel\na\t1\n");
    await write("dev.tsv", content);
    await expect(openDataset(`glue/sst2:${root}`)).rejects.toThrow(message);
  });

  test("what is no table, and what is not there, is said in one line", async () => {
    await write("train.jsonl", "[1]\n");
    await expect(openDataset(`glue/sst2:${root}`)).rejects.toThrow(
      /train\.jsonl: line 1: expected a JSON object, got \[1\]/,
    );
    await rm(join(root, "train.jsonl"));
    await write("train.parquet", "PAR1 not really");
    await expect(openDataset(`glue/sst2:${root}`)).rejects.toMatchObject({ code: "invalid-file" });
    await write("train.tsv", Uint8Array.of(0xff, 0xfe));
    await expect(openDataset(`glue/sst2:${root}`)).rejects.toThrow(/expected text in UTF-8/);
    await expect(openDataset(`glue/sst2:${root}/none`)).rejects.toMatchObject({
      code: "missing-file",
    });
  });
});

describe("samples", () => {
  test("batches are as long as their longest sample asks for, and what is filled up is masked", async () => {
    const long = Array(20).fill("a").join(" ");
    const samples = textSamples(
      { sentences: [["a b"], [long]], labels: [0, 1] },
      input,
      64,
      "texts",
    );
    expect(Array.from(samples.lengths!)).toEqual([16, 32]);
    const short = await samples.batch([0]);
    expect(short.length).toBe(16);
    expect([...(short.feeds.attention_mask as BigInt64Array)].map(Number)).toEqual([
      ...Array(4).fill(1),
      ...Array(12).fill(0),
    ]);
    const both = await samples.batch([1, 0]);
    expect(both.length).toBe(32);
    expect(sentencesOf(both.feeds.input_ids).slice(32, 37)).toEqual([
      ...["[CLS]", "a", "b", "[SEP]", "[PAD]"],
    ]);
  });

  test("what is too long is cut, of two sentences the longer one first", async () => {
    const split = { sentences: [["a a a a a a b", "c c b"], ["a b c good bad"]], labels: [0, 0] };
    const samples = textSamples(split, input, 9, "texts");
    const { feeds, length } = await samples.batch([0, 1]);
    expect(length).toBe(9);
    expect(sentencesOf(feeds.input_ids).slice(0, 9).join(" ")).toBe(
      "[CLS] a a a [SEP] c c b [SEP]",
    );
    expect([...(feeds.token_type_ids as BigInt64Array)].slice(0, 9).map(Number)).toEqual([
      ...[0, 0, 0, 0, 0, 1, 1, 1, 1],
    ]);
    const short = textSamples(split, input, 5, "texts");
    expect(sentencesOf((await short.batch([1])).feeds.input_ids).join(" ")).toBe(
      "[CLS] a b c [SEP]",
    );
  });

  test("what a model has no positions for is refused, unless its tokenizer says to cut", async () => {
    const split = { sentences: [["a"], ["a b c good bad"]], labels: [0, 0] };
    const short = { ...input, maxLength: 5 };
    const { feeds } = await textSamples(split, short, 128, "texts").batch([1]);
    expect(sentencesOf(feeds.input_ids).join(" ")).toBe("[CLS] a b c [SEP]");
    expect(() => textSamples(split, { ...short, truncates: false }, 128, "texts")).toThrow(
      "texts: row 2: expected at most 5 tokens, the positions of the model, got 7; with a model_max_length of 5 in tokenizer_config.json texts are cut",
    );
    // What the data set itself cuts is short enough.
    const cut = textSamples(split, { ...short, truncates: false }, 5, "texts");
    expect((await cut.batch([1])).length).toBe(5);
  });

  test("samples name the tokens that their batches have, and what fills them up", async () => {
    const split = { sentences: [["a good"], ["a b c good bad"], ["c"]], labels: [0, 0, 0] };
    const samples = textSamples(split, input, 128, "texts");
    const { feeds } = await samples.batch([0, 2]);
    const seen = new Set(Array.from(feeds.input_ids as BigInt64Array, Number));
    expect(new Set(samples.tokens!([0, 2]))).toEqual(seen);
    expect(sentencesOf(BigInt64Array.from(samples.tokens!([2]), BigInt)).sort()).toEqual(
      ["[CLS]", "[PAD]", "[SEP]", "c"].sort(),
    );
  });

  test("tokens that a model does not know are refused", () => {
    const split = { sentences: [["a"], ["a good"]], labels: [0, 0] };
    expect(() => textSamples(split, { ...input, vocabulary: 7 }, 128, "texts")).toThrow(
      "texts: row 2: expected tokens below 7, the vocab_size of the model, got 7 from its tokenizer",
    );
    const types = { sentences: [["a", "b"]], labels: [0] };
    expect(() => textSamples(types, { ...input, types: 1 }, 128, "texts")).toThrow(
      "texts: row 1: expected types of tokens below 1, the type_vocab_size of the model, got 1",
    );
    // Where a model does not tell types apart, they do not matter.
    expect(textSamples(types, { ...input, types: 0 }, 128, "texts").count).toBe(1);
  });

  test.each([
    [{ unk_token: "[NONE]" }, ["what"], /row 1: expected tokens below 11, .* got undefined from/],
    [
      { vocab: { ...vocab, good: -1 } },
      ["good"],
      /row 1: expected tokens below 11, .* got -1 from/,
    ],
  ])("a tokenizer that contradicts itself is refused: %j", (changes, sentences, message) => {
    const split = { sentences: [sentences], labels: [0] };
    expect(() => textSamples(split, withTokenizer({ model: changes }), 128, "texts")).toThrow(
      message,
    );
  });

  test("a tokenizer that puts no marks around sentences needs one to be there", async () => {
    const bare = withTokenizer({ post_processor: null });
    const split = { sentences: [["a good"]], labels: [0] };
    const { feeds } = await textSamples(split, bare, 128, "texts").batch([0]);
    expect(sentencesOf(feeds.input_ids).slice(0, 3)).toEqual(["a", "good", "[PAD]"]);
    expect(() => textSamples({ sentences: [[""]], labels: [0] }, bare, 128, "texts")).toThrow(
      "texts: row 1: expected at least one token, got none",
    );
  });

  test("a model of images, or without a tokenizer, is refused", async () => {
    for (const half of ["train", "dev"]) await write(`${half}.tsv`, "sentence\tlabel\na\t1\n");
    const data = await openDataset(`glue/sst2:${root}`);
    const image = { kind: "image", shape: [3, 4, 4], mean: [0, 0, 0], std: [1, 1, 1] } as const;
    expect(() => data.train(image)).toThrow(
      "glue/sst2: expected a model of texts, got one of images",
    );
    expect(() => data.train({ ...input, tokenizer: undefined })).toThrow("tokenizer.json");
  });
});

// The published files, where they are at hand.
const published = new URL("../../../../shared/data/glue", import.meta.url).pathname;
const counts = { sst2: [67_349, 872], rte: [2490, 277], mrpc: [3668, 408] } as const;
test.skipIf(!existsSync(published)).each(Object.entries(counts))(
  "all rows of the published %s are read",
  async (name, [train, dev]) => {
    expect(glueTasks[name]).toBeDefined();
    const data = await openDataset(`glue/${name}:${published}`);
    expect(data.counts).toEqual({ train, test: dev });
  },
);
