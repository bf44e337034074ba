/**
 * Checks that packages import downward only, and from each other's public entries only. That every
 * import is declared, and that files form no cycles, is checked by biome.
 */
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { root } from "./setup.mjs";

// From the bottom up: a package may import those in rows below its own.
const layers = [
  ["base"],
  ["graph", "checkpoints"],
  ["core", "runtime-onnx", "runtime-tfjs"],
  ["train", "data"],
  ["vision", "nlp", "pipeline"],
  ["report"],
  ["cli", "benchmark"],
];
// Model families and runtimes are chosen by apps; packages know their contracts.
const appsOnly = ["runtime-onnx", "runtime-tfjs", "vision", "nlp"];
// Stands alone but for errors and files.
const alone = {
  checkpoints: ["base"],
  "runtime-onnx": ["base", "graph"],
  "runtime-tfjs": ["base", "graph"],
};

const problems = [];
const layerOf = new Map(layers.flatMap((names, layer) => names.map((name) => [name, layer])));

function filesBelow(directory) {
  if (!existsSync(directory)) return [];
  return readdirSync(directory, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile() && entry.name.endsWith(".ts"))
    .map((entry) => join(entry.parentPath, entry.name));
}

for (const folder of ["packages", "apps"]) {
  for (const name of readdirSync(join(root, folder))) {
    const own = layerOf.get(name);
    if (own === undefined)
      problems.push(`${folder}/${name}: has no layer in scripts/check-imports.mjs`);
    for (const file of filesBelow(join(root, folder, name, "src"))) {
      const isTest = file.endsWith(".test.ts");
      const text = readFileSync(file, "utf8");
      for (const [, specifier] of text.matchAll(/from "(@espalier\/[^"]+)"/g)) {
        const [, target, ...inner] = specifier.split("/");
        const where = `${file.slice(root.length + 1)}: imports ${specifier}`;
        if (inner.length > 0 && inner.join("/") !== "testing")
          problems.push(`${where}, which is private`);
        if (inner.length > 0 && !isTest && !file.includes("/testing/"))
          problems.push(`${where} outside tests`);
        if (isTest) continue;
        if (!(layerOf.get(target) < own)) problems.push(`${where}, which is not below it`);
        if (alone[name] && !alone[name].includes(target))
          problems.push(`${where}, but stands alone`);
        if (appsOnly.includes(target) && folder !== "apps")
          problems.push(`${where}, which only apps may`);
      }
    }
  }
}
// Examples are by others: they see public entries, and of test helpers their tests do.
for (const file of filesBelow(join(root, "examples"))) {
  if (file.includes("/dist/")) continue;
  for (const [, specifier] of readFileSync(file, "utf8").matchAll(
    /from "(@espalier\/[^"]+|\.\.[^"]*)"/g,
  )) {
    const inner = specifier.split("/").slice(2).join("/");
    const allowed = inner === "" || (inner === "testing" && file.endsWith(".test.ts"));
    if (specifier.startsWith(".") || !allowed)
      problems.push(`${file.slice(root.length + 1)}: imports ${specifier}, which is private`);
  }
}
for (const problem of problems) process.stderr.write(`${problem}\n`);
process.exitCode = problems.length === 0 ? 0 : 1;
