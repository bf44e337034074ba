import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { EspalierError } from "@espalier/base";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { RunDirectory } from "./run-directory.ts";

let root: string;
beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), "espalier-run-"));
});
afterEach(() => rm(root, { recursive: true, force: true }));

const at = (...names: string[]) => join(root, ...names);
const manifest = { command: "prune", seed: 0 };
const fresh = { resume: false, overwrite: false };
const overwriting = { resume: false, overwrite: true };

async function write(path: string, content = "{}"): Promise<void> {
  await mkdir(join(path, ".."), { recursive: true });
  await writeFile(path, content);
}

describe("an earlier run is overwritten", () => {
  test("with all that it consists of, in its place", async () => {
    await RunDirectory.open(at("run"), manifest, fresh);
    for (const file of ["model/config.json", "report.html", "export.partial/x", "plan.json"]) {
      await write(at("run", file));
    }
    await write(at("data/images"));
    const other = { ...manifest, seed: 1 };
    await RunDirectory.open(at("run"), other, overwriting, [at("data"), at("data/images")]);
    expect(await readdir(at("run"))).toEqual(["run.json"]);
    expect(JSON.parse(await readFile(at("run/run.json"), "utf8"))).toEqual(other);
  });

  test("from within", async () => {
    await RunDirectory.open(at("run"), manifest, fresh);
    await write(at("run/plan.json"));
    const before = process.cwd();
    process.chdir(at("run"));
    try {
      await RunDirectory.open(".", manifest, overwriting);
    } finally {
      process.chdir(before);
    }
    expect(await readdir(at("run"))).toEqual(["run.json"]);
  });

  test("also where it was stopped before it had begun", async () => {
    await write(at("run/run.json.partial"));
    await RunDirectory.open(at("run"), manifest, overwriting);
    expect(await readdir(at("run"))).toEqual(["run.json"]);
  });

  test.each([
    ["of another program", '{"command":"serve"}', /run\.json: expected the file of a run/],
    ["that is no JSON", "precious", /run\.json: expected the file of a run/],
    ["that is null", "null", /run\.json: expected the file of a run/],
  ])("not a directory with a run.json %s", async (_, content, message) => {
    await write(at("project/run.json"), content);
    await write(at("project/model"), "precious");
    const opened = RunDirectory.open(at("project"), manifest, overwriting);
    await expect(opened).rejects.toThrow(message);
    await expect(opened).rejects.toMatchObject({ code: "occupied-directory" });
    expect(await readdir(at("project"))).toEqual(["model", "run.json"]);
  });

  test("not with what else is in it, nor with what it reads", async () => {
    await RunDirectory.open(at("run"), manifest, fresh);
    await write(at("run/model/model.safetensors"));
    const source = at("run/model/model.safetensors");
    await expect(RunDirectory.open(at("run"), manifest, overwriting, [source])).rejects.toThrow(
      /run: expected a directory without .*model\.safetensors, which is read/,
    );
    await write(at("run/notes.txt"));
    const opened = RunDirectory.open(at("run"), manifest, overwriting);
    await expect(opened).rejects.toThrow(
      /run: expected nothing but a run, which would be replaced, found notes\.txt$/,
    );
    await expect(opened).rejects.toMatchObject({ code: "occupied-directory" });
    expect(await readdir(at("run"))).toEqual(["model", "notes.txt", "run.json"]);
  });

  test("not where there is no run", async () => {
    await write(at("full/precious"));
    await expect(RunDirectory.open(at("full"), manifest, overwriting)).rejects.toThrow(
      /full: expected an empty or new directory, found 1 entries; it is no run, without a run\.json$/,
    );
  });
});

test("what cannot be written is an error that names it", async () => {
  await write(at("file"));
  const error = async (work: Promise<unknown>) => {
    const caught = await work.catch((thrown: unknown) => thrown);
    expect(EspalierError.isInstance(caught)).toBe(true);
    return (caught as Error).message;
  };
  expect(await error(RunDirectory.open(at("file"), manifest, fresh))).toMatch(
    /file: expected a directory, got a file$/,
  );
  const run = await RunDirectory.open(at("run"), manifest, fresh);
  await write(at("run/rounds"));
  const work = run.directory("rounds/1/model", async () => {});
  expect(await error(work)).toMatch(/rounds\/1\/model\S*: part of the path is a file$/);
});
