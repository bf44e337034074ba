import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { labelTexts, readTexts } from "./read-texts.ts";
import { openTextFolder } from "./text-folder.ts";

let root: string;
beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), "espalier-texts-"));
});
afterEach(() => rm(root, { recursive: true }));

const write = (name: string, content: string | Uint8Array) => writeFile(join(root, name), content);

/** Writes both halves with these labels, and opens them. */
async function withLabels(train: readonly string[], val = train) {
  const lines = (labels: readonly string[]) =>
    ["text,label", ...labels.map((label) => `a,${label}`)].join("\n");
  await write("train.csv", lines(train));
  await write("val.csv", lines(val));
  return openTextFolder(root);
}

const columns = { sentences: [["text"]], label: ["label"] };
const textsOf = async (name: string) => {
  const texts = await readTexts([join(root, name)], columns, undefined);
  return texts.map(({ sentences: [text], label }) => [text, label]);
};

describe("CSV", () => {
  test("has quoted fields with commas, quotes and line breaks in them", async () => {
    await write("a.csv", '\uFEFFlabel,text\r\nx,"a ""b"", c\nd"\r\ny, e \r\n\r\n');
    expect(await textsOf("a.csv")).toEqual([
      ['a "b", c\nd', "x"],
      [" e ", "y"],
    ]);
  });

  test.each([
    ['text,label\na "b",x\n', /a\.csv: .*quote/i],
    ['text,label\n"a,x\n', /a\.csv: Quote Not Closed.*line/],
    ["text,label\na\n", /a\.csv: Invalid Record Length.*line 2/],
    ["text\na\n", /a\.csv: row 1: expected a column label, got text/],
    ["", /a\.csv: expected rows, got none/],
  ])("%j is refused", async (content, message) => {
    await write("a.csv", content);
    await expect(textsOf("a.csv")).rejects.toThrow(message);
    await expect(textsOf("a.csv")).rejects.toMatchObject({ code: "invalid-file" });
  });
});

describe("labels", () => {
  test("that are names are classes, sorted", async () => {
    const data = await withLabels(["spam", "ham", "spam"], ["ham"]);
    expect(data).toMatchObject({
      ...{ classes: ["ham", "spam"], objective: "classification", measures: [] },
      ...{ counts: { train: 3, test: 1 }, verified: false },
    });
  });

  test("that are whole numbers are numbers of classes", async () => {
    expect((await withLabels(["2", "0", "2"])).classes).toEqual(["0", "1", "2"]);
    await write("train.jsonl", '{"text":"a","label":1}\n{"text":"b","label":0}\n');
    await rm(join(root, "train.csv"));
    expect((await openTextFolder(root).catch((error) => error)).message).toMatch(
      /val\.csv: row 1: label: expected 0 or 1, got 2$/,
    );
  });

  test("that are other numbers are to be predicted", async () => {
    const data = await withLabels(["0.5", "-1", "2"], ["0.25"]);
    expect(data).toMatchObject({ objective: "regression", measures: ["pearson", "spearman"] });
  });

  test.each<[readonly string[], readonly string[], RegExp]>([
    [["ham", "spam"], ["eggs"], /val\.csv: row 1: label: expected ham or spam, got eggs$/],
    [["ham", "spam", ""], ["ham"], /train\.csv: row 3: label: expected ham or spam, got $/],
    [["0", "1"], ["0.5"], /val\.csv: row 1: label: expected 0 or 1, got 0\.5$/],
    [["0", "1"], ["-1"], /val\.csv: row 1: label: expected 0 or 1, got -1$/],
    [["0.5", "1"], ["much"], /val\.csv: row 1: label: expected a number, got much$/],
    [["ham", "ham"], ["ham"], /train\.csv: expected labels of 2 to 10000 classes, got 1$/],
    [["0", "123456789012"], ["0"], /train\.csv: expected labels of 2 to 10000 classes, got more$/],
  ])("%j and then %j are refused", async (train, val, message) => {
    await expect(withLabels(train, val)).rejects.toThrow(message);
  });

  test("keep their numbers", async () => {
    const labels = {
      classes: ["b", "a"],
      numberOf: (label: unknown) => ["b", "a"].indexOf(`${label}`),
    };
    await write("a.csv", "text,label\nx,a\ny,b\n");
    const texts = await readTexts([join(root, "a.csv")], columns, undefined);
    expect(labelTexts(texts, labels)).toEqual({ sentences: [["x"], ["y"]], labels: [1, 0] });
  });
});

test("pairs of texts, and halves of other names and kinds", async () => {
  await write("train.tsv", 'sentence1\tsentence2\tlabel\na "b\tc\tyes\nd\te\tno\n');
  await write("test.jsonl", '{"label":"no","sentence2":"x","sentence1":"y"}\n');
  const data = await openTextFolder(root);
  expect(data.classes).toEqual(["no", "yes"]);
  const before = await data.digest();
  await write("test.jsonl", '{"label":"no","sentence2":"y","sentence1":"x"}\n');
  expect(await (await openTextFolder(root)).digest()).not.toBe(before);
  // Sets for development go before those for the end.
  await write("validation.jsonl", '{"label":"no","premise":"x"}\n');
  await expect(openTextFolder(root)).rejects.toThrow(
    /validation\.jsonl: expected columns label and text, or sentence, or text1 and text2, or sentence1 and sentence2, or premise and hypothesis, got label, premise$/,
  );
});

test("what is not there is said", async () => {
  await expect(openTextFolder(root)).rejects.toThrow(
    /expected train with one of the endings \.csv, \.tsv, \.jsonl, \.json, \.parquet$/,
  );
  await expect(openTextFolder(join(root, "none"))).rejects.toMatchObject({ code: "missing-file" });
});
