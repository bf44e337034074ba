import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";
import { cellsOf } from "./cells.ts";
import { presetNames, readTable, readTables, type Table } from "./table.ts";

const directory = fileURLToPath(new URL("../../../../benchmarks/tables", import.meta.url));
const tables = await readTables(directory);
const resnet56 = tables.find(({ name }) => name === "resnet56-cifar10") as Table;

test("every table of the paper is there, and every published row names its source", () => {
  const names = tables.map(({ name }) => name);
  for (const network of ["resnet56", "wideresnet32", "preresnet29", "vgg16"]) {
    expect(names).toContain(`${network}-cifar10`);
  }
  expect(names).toContain("resnet50-imagenet");
  for (const { paper, published } of tables) {
    for (const { source } of [...paper, ...published]) expect(source).not.toBe("");
  }
});

test("a cell has a name of its own in every table and preset", () => {
  for (const table of tables) {
    const names = presetNames.flatMap((preset) => cellsOf(table, preset).map(({ name }) => name));
    expect(names.length).toBeGreaterThan(2);
    expect(new Set(names).size).toBe(names.length);
  }
});

test("one seed of all methods at the first budget comes first, then budgets, then seeds", () => {
  const { quick } = resnet56.presets;
  const cells = cellsOf(resnet56, "quick");
  const firsts = cells.slice(0, resnet56.methods.length);
  expect(firsts.map(({ method }) => method)).toEqual(resnet56.methods);
  expect(new Set(firsts.map(({ keep, seed }) => `${keep} ${seed}`))).toEqual(new Set(["0.5 0"]));
  const perSeed = resnet56.methods.length * quick.keep.length;
  expect(cells.slice(0, perSeed).every(({ seed }) => seed === quick.seeds[0])).toBe(true);
  expect(cells).toHaveLength(perSeed * quick.seeds.length);
});

test("a cell's name changes with its inputs, and with nothing else", () => {
  const nameOf = (changes: Partial<Table>, quick: Partial<Table["presets"]["quick"]> = {}) =>
    cellsOf(
      {
        ...resnet56,
        ...changes,
        presets: { ...resnet56.presets, quick: { ...resnet56.presets.quick, ...quick } },
      },
      "quick",
    )[0].name;
  const name = nameOf({});
  expect(nameOf({ title: "other", paper: [], published: [] })).toBe(name);
  expect(nameOf({}, { description: "other", seeds: [0], keep: [0.5] })).toBe(name);
  const { tune } = resnet56.presets.quick;
  // The order of keys says nothing.
  const turned = Object.fromEntries(Object.entries(tune).reverse()) as typeof tune;
  expect(nameOf({}, { tune: turned })).toBe(name);
  expect(nameOf({}, { tune: { ...tune, epochs: 4 } })).not.toBe(name);
  expect(nameOf({}, { images: { train: 100, test: null } })).not.toBe(name);
  expect(nameOf({}, { sha256: "00000000" })).not.toBe(name);
  expect(nameOf({}, { samples: 100 })).not.toBe(name);
});

test("a table that does not fit is refused with the place", async () => {
  const path = await mkdtemp(join(tmpdir(), "espalier-table-"));
  const file = join(path, "table.json");
  const text = await readFile(join(directory, "resnet56-cifar10.json"), "utf8");
  const read = async (from: string, to: string) => {
    expect(text).toContain(from);
    await writeFile(file, text.replace(from, to));
    return readTable(file);
  };
  await expect(read('"budget": "macs"', '"budget": "flops"')).rejects.toThrow(
    /table\.json: budget/,
  );
  await expect(read('"accuracy": 93.17', '"accuracy": 931.7')).rejects.toThrow(
    /table\.json: published\.\d+\.accuracy/,
  );
  await expect(read('"seeds"', '"seed"')).rejects.toThrow(/table\.json: presets\.smoke/);
  await rm(path, { recursive: true });
});
