import { randomBytes } from "node:crypto";
import { mkdir, mkdtemp, readdir, readFile, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { EspalierError } from "@espalier/base";
import fc from "fast-check";
import { create } from "tar";
import { afterEach, beforeEach, expect, test } from "vitest";
import { unpackArchive } from "./unpack-archive.ts";

let directory: string;
let archive: string;
let target: string;
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), "espalier-unpack-"));
  archive = join(directory, "archive.tar.gz");
  target = join(directory, "target");
  await mkdir(join(directory, "folder", "deeper"), { recursive: true });
  await mkdir(target);
});
afterEach(() => rm(directory, { recursive: true, force: true }));

const pack = (paths = ["folder"]) =>
  create({ cwd: directory, file: archive, gzip: true, preservePaths: true }, paths);

test("writes what is wanted and nothing else", async () => {
  await writeFile(join(directory, "outside.bin"), "outside");
  await writeFile(join(directory, "folder", "wanted.bin"), "wanted");
  await writeFile(join(directory, "folder", "other.bin"), "other");
  await writeFile(join(directory, "folder", "deeper", "outside.bin"), "deeper");
  await symlink("/etc/hostname", join(directory, "folder", "link.bin"));
  await pack(["folder", "outside.bin", "folder/../outside.bin", join(directory, "outside.bin")]);
  const wanted = new Map(["wanted.bin", "link.bin", "outside.bin"].map((name) => [name, 10]));
  await unpackArchive(archive, target, wanted, undefined);
  expect(await readdir(target)).toEqual(["wanted.bin"]);
  expect(await readFile(join(target, "wanted.bin"), "utf8")).toBe("wanted");
});

test("a damaged archive is either read or refused", async () => {
  await writeFile(join(directory, "folder", "a.bin"), randomBytes(3_000));
  await writeFile(join(directory, "folder", "b.bin"), Buffer.alloc(3_000));
  await pack();
  const whole = await readFile(archive);
  const wanted = new Map([
    ["a.bin", 3_000],
    ["b.bin", 3_000],
  ]);
  const position = fc.nat({ max: whole.length - 1 });
  await fc.assert(
    fc.asyncProperty(position, fc.option(position), fc.nat({ max: 255 }), async (at, end, byte) => {
      const damaged = Buffer.from(whole.subarray(0, end ?? whole.length));
      if (at < damaged.length) damaged[at] = byte;
      await writeFile(archive, damaged);
      const error = await unpackArchive(archive, target, wanted, undefined).catch(
        (caught: unknown) => caught,
      );
      if (error !== undefined) expect(EspalierError.isInstance(error, "invalid-file")).toBe(true);
    }),
    { numRuns: 300 },
  );
});
