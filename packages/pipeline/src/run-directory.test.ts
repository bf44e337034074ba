import { spawnSync } from "node:child_process";
import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { hostname, tmpdir } from "node:os";
import { join } from "node:path";
import { EspalierError, ownName } from "@espalier/base";
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

/** Leaves a run that has only begun. */
async function begin(path: string): Promise<void> {
  await (await RunDirectory.open(path, manifest, fresh)).close();
}

async function write(path: string, content = "{}"): Promise<void> {
  await mkdir(join(path, ".."), { recursive: true });
  await writeFile(path, content);
}

describe("an earlier run is overwritten", () => {
  test("with all that it consists of, in its place", async () => {
    await begin(at("run"));
    for (const file of ["model/config.json", "report.html", "export.partial/x", "plan.json"]) {
      await write(at("run", file));
    }
    await write(at("run/summary.json.0123456789ab.partial"));
    await write(at("data/images"));
    const other = { ...manifest, seed: 1 };
    const inputs = [at("data"), at("data/images")];
    await (await RunDirectory.open(at("run"), other, overwriting, inputs)).close();
    expect(await readdir(at("run"))).toEqual(["run.json"]);
    expect(JSON.parse(await readFile(at("run/run.json"), "utf8"))).toEqual(other);
  });

  test("from within", async () => {
    await begin(at("run"));
    await write(at("run/plan.json"));
    const before = process.cwd();
    process.chdir(at("run"));
    try {
      await (await RunDirectory.open(".", manifest, overwriting)).close();
    } finally {
      process.chdir(before);
    }
    expect(await readdir(at("run"))).toEqual(["run.json"]);
  });

  test("also where it was stopped before it had begun", async () => {
    for (const left of ["run.json.partial", "run.json.0123456789ab.partial"]) {
      await write(at("run", left));
      await (await RunDirectory.open(at("run"), manifest, overwriting)).close();
      expect(await readdir(at("run"))).toEqual(["run.json"]);
      await rm(at("run"), { recursive: true });
    }
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
    await begin(at("run"));
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

test("a run to be resumed with another setting names that one", async () => {
  const settings = { plan: { budget: { of: "macs", keep: 0.5 }, kinds: ["channel"] }, rounds: 1 };
  await (await RunDirectory.open(at("run"), { ...manifest, settings }, fresh)).close();
  const resumed = (changes: object) =>
    RunDirectory.open(
      at("run"),
      { ...manifest, settings: { ...settings, ...changes } },
      { resume: true, overwrite: false },
    );
  const { plan } = settings;
  await expect(resumed({ plan: { ...plan, budget: { of: "macs", keep: 0.4 } } })).rejects.toThrow(
    /run\.json: the run to be resumed had settings\.plan\.budget\.keep 0\.5, now it is 0\.4$/,
  );
  await expect(resumed({ plan: { ...plan, kinds: ["head"] } })).rejects.toThrow(
    /had settings\.plan\.kinds \["channel"\], now it is \["head"\]$/,
  );
  await expect(resumed({ rounds: undefined })).rejects.toThrow(
    /had settings\.rounds 1, now it is nothing$/,
  );
  await expect(resumed({ clip: { norm: 1 } })).rejects.toThrow(
    /had settings\.clip nothing, now it is \{"norm":1\}$/,
  );
});

test("a run is not resumed with other data, but one that does not know its data is", async () => {
  const resume = (dataDigest: string) =>
    RunDirectory.open(at("run"), { ...manifest, dataDigest }, { resume: true, overwrite: false });
  await (await RunDirectory.open(at("run"), { ...manifest, dataDigest: "a" }, fresh)).close();
  await (await resume("a")).close();
  await expect(resume("b")).rejects.toThrow(/had dataDigest "a", now it is "b"$/);
  await rm(at("run"), { recursive: true });
  await (await RunDirectory.open(at("run"), manifest, fresh)).close();
  await (await resume("b")).close();
});

describe("one process at a time", () => {
  const resuming = { resume: true, overwrite: false };
  const lock = (owner: string) => `run.lock-${owner}`;
  const locks = async () => (await readdir(at("run"))).filter((name) => /lock/.test(name));

  test("works in a run", async () => {
    const run = await RunDirectory.open(at("run"), manifest, fresh);
    expect(await locks()).toEqual([lock(ownName())]);
    for (const options of [fresh, resuming, overwriting]) {
      await expect(RunDirectory.open(at(".", "run"), manifest, options)).rejects.toMatchObject({
        code: "occupied-directory",
      });
    }
    await expect(RunDirectory.open(at("run"), manifest, resuming)).rejects.toThrow(
      new RegExp(
        `run: process ${process.pid} of .* is at work there; if it is not, remove .*lock-`,
      ),
    );
    expect(await readdir(at("run"))).toContain("run.json");
    await run.close();
    expect(await locks()).toEqual([]);
    await (await RunDirectory.open(at("run"), manifest, resuming)).close();
  });

  test("is asked whether it lives; those elsewhere cannot be asked", async () => {
    await begin(at("run"));
    const { pid } = spawnSync(process.execPath, ["--version"]);
    // Of this number, too, another process may have left one.
    for (const owner of [`${hostname()}-${pid}`, ownName()]) {
      await write(at("run", lock(owner)), "");
      await (await RunDirectory.open(at("run"), manifest, resuming)).close();
      expect(await locks()).toEqual([]);
    }
    const { ppid } = process;
    for (const owner of [`${hostname()}-${ppid}`, `elsewhere-${pid}`]) {
      await write(at("run", lock(owner)), "");
      await expect(RunDirectory.open(at("run"), manifest, overwriting)).rejects.toThrow(
        `remove ${at("run", lock(owner))}`,
      );
      expect(await readdir(at("run"))).toEqual(["run.json", lock(owner)]);
      await rm(at("run", lock(owner)));
    }
  });

  test("leaves nothing that hinders the next when it was killed before it had begun", async () => {
    const { pid } = spawnSync(process.execPath, ["--version"]);
    await write(at("run", lock(`${hostname()}-${pid}`)), "");
    await begin(at("run"));
    expect(await readdir(at("run"))).toEqual(["run.json"]);
  });

  test("lets go when it fails", async () => {
    // What JSON cannot hold.
    const opened = RunDirectory.open(at("run"), { ...manifest, seed: 1n }, fresh);
    await expect(opened).rejects.toThrow(/BigInt/);
    expect(await locks()).toEqual([]);
  });
});
