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
  const { texts } = await readTexts([join(root, name)], columns, undefined);
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

  test("may have line ends of different kinds", async () => {
    await write("a.csv", "text,label\na,x\r\nb,y\rc,x");
    expect(await textsOf("a.csv")).toEqual([
      ["a", "x"],
      ["b", "y"],
      ["c", "x"],
    ]);
    await write("a.csv", Uint8Array.of(0x61, 0xff));
    await expect(textsOf("a.csv")).rejects.toThrow(/a\.csv: expected text in UTF-8$/);
  });

  test("is read in pieces, between which it can be interrupted", async () => {
    // Longer than a piece, with characters of several bytes at its ends.
    const long = "äöü€".repeat(40_000);
    await write("a.csv", `text,label\n${long},x\n${long},y\n`);
    expect(await textsOf("a.csv")).toEqual([
      [long, "x"],
      [long, "y"],
    ]);
    const stop = new AbortController();
    const reading = readTexts([join(root, "a.csv")], columns, stop.signal);
    stop.abort();
    await expect(reading).rejects.toMatchObject({ code: "aborted" });
  });

  test.each([
    ['text,label\na "b",x\n', /a\.csv: .*quote/i],
    ['text,label\n"a,x\n', /a\.csv: Quote Not Closed.*line/],
    ["text,label,label\na,x,y\n", /a\.csv: expected columns of different names, got "label" twice/],
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
    expect((await withLabels(["1", "0"], ["2"])).classes).toEqual(["0", "1", "2"]);
    await write("val.csv", "text,label\na,2\nb,-1\n");
    await write("train.jsonl", '{"text":"a","label":1}\n{"text":"b","label":0}\n');
    await rm(join(root, "train.csv"));
    expect((await openTextFolder(root).catch((error) => error)).message).toMatch(
      /val\.csv: row 2: label: expected 0 or 1 or 2, got "-1"$/,
    );
  });

  test("that are objects, or would break a line, are refused in one", async () => {
    await withLabels(["0", "1"]);
    await rm(join(root, "val.csv"));
    for (const label of [{ toString: 0 }, ["0"], "a\nb\u001b[2J", null]) {
      await write("val.jsonl", JSON.stringify({ text: "a", label }));
      const { message, code } = await openTextFolder(root).catch((error) => error);
      expect(code).toBe("invalid-file");
      expect(message).toMatch(/val\.jsonl: row 1: label: expected 0 or 1, got [ -~…]+$/);
    }
  });

  test("are written in many ways", async () => {
    expect((await withLabels([" spam", "ham ", "spam"])).classes).toEqual(["ham", "spam"]);
    expect((await withLabels(["1e-05", "+1", " .5"])).objective).toBe("regression");
  });

  test("that are other numbers are to be predicted", async () => {
    const data = await withLabels(["0.5", "-1", "2"], ["0.25"]);
    expect(data).toMatchObject({ objective: "regression", measures: ["pearson", "spearman"] });
  });

  test.each<[readonly string[], readonly string[], RegExp]>([
    [["ham", "spam"], ["eggs"], /val\.csv: row 1: label: expected ham or spam, got "eggs"$/],
    [
      ["ham", "spam", ""],
      ["ham"],
      /train\.csv: row 3: label: expected a name or a number, got none$/,
    ],
    [
      ["0", "1", "N/A"],
      ["0"],
      /train\.csv: row 3: label: expected a number as elsewhere, got "N\/A"$/,
    ],
    [["0", "1"], ["0.5"], /val\.csv: row 1: label: expected 0 or 1, got "0\.5"$/],
    [["0", "1"], ["-1"], /val\.csv: row 1: label: expected 0 or 1, got "-1"$/],
    [["0.5", "1"], ["much"], /val\.csv: row 1: label: expected a number, got "much"$/],
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
    const { texts } = await readTexts([join(root, "a.csv")], columns, undefined);
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
  await write("validation.jsonl", '{"label":"no","text":"x"}\n');
  await expect(openTextFolder(root)).rejects.toThrow(
    /validation\.jsonl: row 1: expected a column sentence1, got label, text$/,
  );
});

test.each([
  [["question", "sentence"], true],
  [["text", "text_pair"], true],
  [["premise", "hypothesis"], true],
  [["sentence", "idx"], false],
])("of columns %j both are read: %s", async ([first, second], both) => {
  const digest = async (other: string) => {
    const rows = ["a", "b"].map((label) =>
      JSON.stringify({ [first]: "x", [second]: other, label }),
    );
    for (const half of ["train", "val"]) await write(`${half}.jsonl`, rows.join("\n"));
    return (await openTextFolder(root)).digest();
  };
  expect((await digest("y")) !== (await digest("z"))).toBe(both);
});

test.each([["text,sentence1,sentence2,label"], ["words,label"], ["text,category"]])(
  "columns %s are refused",
  async (header) => {
    await write("train.csv", `${header}\n${header}\n`);
    await write("val.csv", `${header}\n${header}\n`);
    await expect(openTextFolder(root)).rejects.toThrow(
      /train\.csv: expected columns label and one of: text, or sentence, or .*; got /,
    );
  },
);

test("data of other classes are other data", async () => {
  const named = await (await withLabels(["ham", "spam"])).digest();
  expect(await (await withLabels(["0", "1"])).digest()).not.toBe(named);
  expect(await (await withLabels(["ham", "spam"])).digest()).toBe(named);
});

test("what is not there is said", async () => {
  await expect(openTextFolder(root)).rejects.toThrow(
    /expected train with one of the endings \.tsv, \.jsonl, \.json, \.parquet, \.csv$/,
  );
  await expect(openTextFolder(join(root, "none"))).rejects.toMatchObject({ code: "missing-file" });
});
