import { mkdir, mkdtemp, readdir, readFile, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createOnnxExecutor } from "@espalier/runtime-onnx";
import { tinyResNet } from "@espalier/vision/testing";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { exportModel } from "./export.ts";
import { writeExport } from "./export-directory.ts";
import { saveModel } from "./save-model.ts";

let root: string;
beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), "espalier-export-"));
});
afterEach(() => rm(root, { recursive: true, force: true }));

const at = (...names: string[]) => join(root, ...names);
const model = tinyResNet();
const executor = createOnnxExecutor({ threads: 1 });

function exportTo(
  to: string,
  { overwrite = true, inputs = [] as string[], source = "first", stop = false } = {},
): Promise<void> {
  return writeExport(to, { overwrite, inputs, files: ["vocab.txt"] }, async (partial) => {
    const metadata = { "espalier.source": source };
    await exportModel(model, partial, { executor, precisions: ["fp32"], metadata });
    if (stop) throw new Error("stopped");
  });
}

const sourceOf = async (to: string) =>
  /espalier\.source..(first|second)/s.exec(
    await readFile(join(to, "onnx/model.onnx"), "latin1"),
  )?.[1];

describe("an export in place of another", () => {
  test("replaces it when it is complete, and not before", async () => {
    await exportTo(at("out"), { overwrite: false });
    await expect(exportTo(at("out"), { overwrite: false })).rejects.toThrow(
      /out: expected an empty or new directory, found 5 entries; --overwrite replaces an earlier export$/,
    );
    const before = await readdir(at("out"));
    await writeFile(at("out/vocab.txt"), "");
    await expect(exportTo(at("out"), { source: "second", stop: true })).rejects.toThrow("stopped");
    expect(await readdir(at("out"))).toEqual([...before, "vocab.txt"]);
    expect(await sourceOf(at("out"))).toBe("first");
    await exportTo(at("out"), { source: "second" });
    expect(await readdir(at("out"))).toEqual(before);
    expect(await sourceOf(at("out"))).toBe("second");
  });

  test.each([
    ["of an earlier version", ["onnx/model.onnx", "model.safetensors.partial"]],
    ["that had hardly begun", ["export.partial/onnx/model.onnx.partial"]],
    ["stopped as it took its place", ["model.safetensors", "export.partial/config.json"]],
  ])("replaces what is left of one that was killed, %s", async (_, files) => {
    for (const file of files) {
      await mkdir(join(at("out", file), ".."), { recursive: true });
      await writeFile(at("out", file), "");
    }
    await exportTo(at("out"));
    expect((await readdir(at("out"))).sort()).toEqual([
      ...["config.json", "model.py", "model.safetensors", "onnx", "preprocessor_config.json"],
    ]);
  });

  test("leaves all else alone", async () => {
    const refused = async (to: string, message: RegExp, inputs: string[] = []) => {
      const before = await readdir(to, { recursive: true });
      const error = await exportTo(to, { inputs }).catch((caught: unknown) => caught);
      expect((error as Error).message).toMatch(message);
      expect(await readdir(to, { recursive: true })).toEqual(before);
    };
    // A project with a README and a configuration of its own.
    await mkdir(at("project/src"), { recursive: true });
    for (const name of ["README.md", "config.json", "src/index.js"])
      await writeFile(at("project", name), "{}");
    await refused(at("project"), /project: expected nothing but an earlier export.*, found src$/);
    await rm(at("project/src"), { recursive: true });
    await refused(at("project"), /project: expected an earlier export.*found a model that is none/);
    await saveModel(model, at("saved"));
    await refused(at("saved"), /saved: expected an earlier export/);
    await rm(at("saved/config.json"));
    await refused(at("saved"), /saved: expected an earlier export/);
    // Weights that are exported are not replaced by what comes of them.
    await exportTo(at("out"));
    const weights = at("out/model.safetensors");
    await refused(at("out"), /out: expected a directory without .*, which is read/, [weights]);
    await symlink(at("out"), at("link"));
    await refused(at("out"), /expected a directory without/, [at("link/model.safetensors")]);
    await symlink(weights, at("elsewhere.safetensors"));
    await refused(at("link"), /expected a directory without/, [at("elsewhere.safetensors")]);
    await exportTo(at("link"), { inputs: [at("saved/model.safetensors")] });
  });
});
