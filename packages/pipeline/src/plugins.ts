/** @file Plugins: model families by others, loaded by name. */
import { existsSync, realpathSync, statSync } from "node:fs";
import { dirname, isAbsolute, join, resolve } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { EspalierError, quote, readJson, show } from "@espalier/base";
import type { ModelFamily } from "@espalier/core";
import { resolve as resolveSpecifier } from "import-meta-resolve";
import { MANIFEST, type Manifest } from "./run-directory.ts";

// Their values would be foreign to ours: operations are told apart by identity.
const SHARED = "@espalier/graph";

/** What a family must have; see ModelFamily. The other fields may be missing. */
const fields = {
  name: "string",
  presets: "object",
  piecewiseLinear: "boolean",
  presetOf: "function",
  detect: "function",
  load: "function",
  withClasses: "function",
  initialize: "function",
} satisfies Record<Exclude<keyof ModelFamily, "withHead" | "files">, string>;

/**
 * `known` and the families of all `plugins`: of each the array that it exports as `families`. This
 * runs their code.
 *
 * @param plugins Files, relative to `directory`, or packages that are found from there.
 * @throws EspalierError `invalid-argument` for a plugin that is not found, does not load, exports no
 *   families, or whose families or presets have the name of another.
 */
export async function loadPlugins(
  plugins: readonly string[],
  known: readonly ModelFamily[],
  directory: string = process.cwd(),
): Promise<readonly ModelFamily[]> {
  const families = [...known];
  for (const plugin of new Set(plugins)) {
    for (const family of await loadPlugin(plugin, directory)) {
      expectNew(plugin, family, families);
      families.push(family);
    }
  }
  return families;
}

async function loadPlugin(plugin: string, directory: string): Promise<readonly ModelFamily[]> {
  const url = locate(plugin, directory);
  expectSharedGraph(plugin, url);
  let exported: { readonly families?: unknown };
  try {
    exported = await import(url);
  } catch (error) {
    throw fail(plugin, `expected a module that loads, got ${firstLine(error)}`, error);
  }
  const { families } = exported;
  if (!Array.isArray(families) || families.length === 0) {
    const got = families === undefined ? "none" : show(families);
    throw fail(plugin, `expected an export "families", an array of model families, got ${got}`);
  }
  families.forEach((family: unknown, i) => {
    expectFamily(plugin, `families[${i}]`, family);
  });
  return families as ModelFamily[];
}

/** The URL of a plugin's module. */
function locate(plugin: string, directory: string): string {
  const path = resolve(directory, plugin);
  if (statSync(path, { throwIfNoEntry: false })?.isFile()) return pathToFileURL(path).href;
  if (isAbsolute(plugin) || /^\.{1,2}[\\/]/.test(plugin)) {
    throw fail(plugin, `expected a file, found ${existsSync(path) ? "a directory" : "none"}`);
  }
  try {
    // Packages are looked for as if a file of the directory imported them.
    return resolveSpecifier(plugin, pathToFileURL(join(directory, "importer.js")).href);
  } catch (error) {
    const message = `expected a file or a package that is installed here, found neither from ${directory}`;
    throw fail(plugin, message, error);
  }
}

/** Refuses a plugin that was installed with a copy of our packages of its own. */
function expectSharedGraph(plugin: string, url: string): void {
  const found = (from: string) => realpathSync(fileURLToPath(resolveSpecifier(SHARED, from)));
  let theirs: string;
  try {
    theirs = found(url);
  } catch {
    // What it does not find it does not use, or loading it says so.
    return;
  }
  const ours = found(import.meta.url);
  if (theirs === ours) return;
  throw fail(
    plugin,
    `expected it to use ${dirname(ours)}, found another copy of ${SHARED} in ${dirname(theirs)}; make it a peer dependency and install both in one place`,
  );
}

function expectFamily(plugin: string, where: string, value: unknown): asserts value is ModelFamily {
  const family = (value ?? {}) as Readonly<Record<string, unknown>>;
  for (const [field, type] of Object.entries(fields)) {
    const given = family[field];
    if (typeof given === type && given !== null && given !== "") continue;
    const got = given === null || given === "" ? show(given) : typeof given;
    throw fail(plugin, `${where}.${field}: expected ${type}, got ${got}`);
  }
  for (const [preset, config] of Object.entries(family.presets as Record<string, unknown>)) {
    const type = (config as { model_type?: unknown } | null)?.model_type;
    if (typeof type === "string") continue;
    throw fail(
      plugin,
      `${where}.presets: expected model_type in ${quote(preset)}, got ${show(type)}`,
    );
  }
}

function expectNew(plugin: string, family: ModelFamily, known: readonly ModelFamily[]): void {
  for (const { name, presets } of known) {
    if (name === family.name) throw fail(plugin, `there is a family ${quote(name)} already`);
    const taken = Object.keys(family.presets).find((preset) => Object.hasOwn(presets, preset));
    if (taken === undefined) continue;
    throw fail(plugin, `there is a network ${quote(taken)} of the family ${quote(name)} already`);
  }
}

function fail(plugin: string, message: string, cause?: unknown): EspalierError {
  const text = `plugin ${plugin}: ${message}`;
  return new EspalierError("invalid-argument", text, { plugin }, cause);
}

/** What was thrown, in one line. */
function firstLine(thrown: unknown): string {
  const text = thrown instanceof Error ? `${thrown.name}: ${thrown.message}` : String(thrown);
  return text.split("\n")[0];
}

/**
 * The plugins that the run which `path` belongs to was made with: `path` is the run's directory or
 * lies in it. Empty if there is no run, or it had none.
 */
export async function pluginsOfRun(path: string): Promise<readonly string[]> {
  const places = [path, dirname(path), dirname(dirname(path)), dirname(dirname(dirname(path)))];
  const manifest = places.map((place) => join(place, MANIFEST)).find(existsSync);
  if (manifest === undefined) return [];
  const { plugins } = ((await readJson(manifest)) ?? {}) as Manifest;
  return Array.isArray(plugins) ? plugins.filter((plugin) => typeof plugin === "string") : [];
}

/**
 * That a run which is to be resumed is given the plugins it was begun with.
 *
 * @throws EspalierError `invalid-argument` naming those that are missing.
 */
export async function expectPlugins(run: string, given: readonly string[]): Promise<void> {
  if (!existsSync(join(run, MANIFEST))) return;
  const missing = (await pluginsOfRun(run)).filter((plugin) => !given.includes(plugin));
  if (missing.length === 0) return;
  throw new EspalierError(
    "invalid-argument",
    `${run}: the run was begun with ${describePlugins(missing)}, which ${missing.length === 1 ? "is" : "are"} needed to resume it`,
    { run, missing },
  );
}

/** As they are given to the command. */
export function describePlugins(plugins: readonly string[]): string {
  return plugins.map((plugin) => `--plugin ${plugin}`).join(" ");
}
