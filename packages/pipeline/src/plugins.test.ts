import { mkdir, mkdtemp, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import type { ModelFamily } from "@espalier/core";
import { cifarResNet } from "@espalier/vision";
import { tinyResNet } from "@espalier/vision/testing";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { expectPlugins, loadPlugins } from "./plugins.ts";
import { saveModel } from "./save-model.ts";
import { loadSource } from "./source.ts";

let directory: string;
const write = async (name: string, text: string) => {
  const path = join(directory, name);
  await mkdir(dirname(path), { recursive: true });
  await writeFile(path, text);
};

const family = (name: string, presets = "{}") =>
  `{ name: ${JSON.stringify(name)}, presets: ${presets}, piecewiseLinear: true, presetOf() {},
     detect() {}, load() {}, withClasses() {}, initialize() {} }`;

beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), "espalier-plugins-"));
  await write("mine.mjs", `export const families = [${family("mine")}, ${family("other")}];`);
  await write("package/index.js", `export const families = [${family("packaged")}];`);
  await write(
    "package/package.json",
    JSON.stringify({ name: "packaged", type: "module", exports: { import: "./index.js" } }),
  );
  await mkdir(join(directory, "node_modules"));
  await symlink(join(directory, "package"), join(directory, "node_modules", "packaged"));
});
afterAll(() => rm(directory, { recursive: true, force: true }));

const namesOf = (families: readonly ModelFamily[]) => families.map(({ name }) => name);
const load = (...plugins: string[]) => loadPlugins(plugins, [cifarResNet], directory);

describe("plugins are found", () => {
  test.each([
    ["by a path relative to the directory", "mine.mjs", ["mine", "other"]],
    ["by one that begins with a dot", "./mine.mjs", ["mine", "other"]],
    ["as packages installed there, for import alone", "packaged", ["packaged"]],
  ])("%s", async (_name, plugin, names) => {
    expect(namesOf(await load(plugin))).toEqual(["cifar-resnet", ...names]);
    expect(namesOf(await load(join(directory, "mine.mjs")))).toContain("mine");
  });

  test("several, each once", async () => {
    const names = namesOf(await load("mine.mjs", "packaged", "mine.mjs"));
    expect(names).toEqual(["cifar-resnet", "mine", "other", "packaged"]);
  });
});

describe("one line says what is wrong with", () => {
  const preset = (config: string) => family("x", `{ "resnet20-cifar10": ${config} }`);
  test.each<[string, string, string | undefined, RegExp]>([
    ["a file that is not there", "./none.mjs", undefined, /expected a file, found none$/],
    ["a directory", "./package", undefined, /expected a file, found a directory$/],
    ["an unknown package", "no-such-package", undefined, /a package that is installed here, found/],
    ["a module that throws", "a.mjs", "throw new Error('one\\ntwo')", /loads, got Error: one$/],
    ["one that throws anything", "b.mjs", "throw 7", /expected a module that loads, got 7$/],
    ["no JavaScript", "c.mjs", "export const = 3", /loads, got \w+Error: /],
    ["an import that is missing", "d.mjs", "import 'no-such'", /Cannot find package 'no-such'/],
    ["no families", "e.mjs", "export default []", /an array of model families, got none$/],
    ["an empty array", "f.mjs", "export const families = []", /model families, got \[\]$/],
    ["something else", "g.mjs", "export const families = 3", /model families, got 3$/],
    [
      "null",
      "h.mjs",
      "export const families = [null]",
      /\[0\].name: expected string, got undefined$/,
    ],
    [
      "a family without a function",
      "i.mjs",
      `export const families = [{ ...${family("x")}, load: 3 }]`,
      /families\[0\].load: expected function, got number$/,
    ],
    [
      "a preset without model_type",
      "j.mjs",
      `export const families = [${family("x", "{ p: {} }")}]`,
      /families\[0\].presets: expected model_type in "p", got nothing$/,
    ],
    [
      "a family whose name is taken",
      "k.mjs",
      `export const families = [${family("cifar-resnet")}]`,
      /there is a family "cifar-resnet" already$/,
    ],
    [
      "two families of one name",
      "l.mjs",
      `export const families = [${family("x")}, ${family("x")}]`,
      /there is a family "x" already$/,
    ],
    [
      "a preset whose name is taken",
      "m.mjs",
      `export const families = [${preset('{ model_type: "x" }')}]`,
      /there is a network "resnet20-cifar10" of the family "cifar-resnet" already$/,
    ],
  ])("%s", async (_name, plugin, text, message) => {
    if (text !== undefined) await write(plugin, text);
    const failed = load(plugin);
    await expect(failed).rejects.toMatchObject({ code: "invalid-argument" });
    await expect(failed).rejects.toThrow(message);
    await expect(failed).rejects.toThrow(/^plugin [^\n]*$/);
  });

  test("a plugin that brings another copy of our packages", async () => {
    const copy = join("elsewhere", "node_modules", "@espalier", "graph");
    await write(join(copy, "package.json"), JSON.stringify({ exports: "./index.js" }));
    await write(join(copy, "index.js"), "");
    await write("elsewhere/plugin.mjs", `export const families = [${family("x")}];`);
    await expect(load("elsewhere/plugin.mjs")).rejects.toThrow(
      /found another copy of @espalier\/graph in .*elsewhere/,
    );
  });
});

test("runs name the plugins that they need", async () => {
  await write("run/run.json", JSON.stringify({ plugins: ["mine.mjs", "packaged"] }));
  const run = join(directory, "run");
  await expect(expectPlugins(run, ["packaged", "mine.mjs"])).resolves.toBeUndefined();
  await expect(expectPlugins(run, ["packaged"])).rejects.toThrow(
    /run: the run was begun with --plugin mine.mjs, which is needed to resume it$/,
  );
  await expect(expectPlugins(join(directory, "none"), [])).resolves.toBeUndefined();
  await saveModel(tinyResNet(), join(run, "model"));
  for (const source of [run, join(run, "model"), join(run, "model", "model.safetensors")]) {
    await expect(loadSource(source, [])).rejects.toThrow(
      /; its run was made with --plugin mine.mjs --plugin packaged$/,
    );
  }
});
