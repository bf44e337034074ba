import { spawnSync } from "node:child_process";
import { hostname } from "node:os";
import { expect, test } from "vitest";
import { ownerOf, ownName } from "./index.ts";

test("names of processes say whether they are running", () => {
  const host = hostname();
  expect(ownerOf(ownName())).toEqual({ host, pid: process.pid, state: "running" });
  const { pid } = spawnSync(process.execPath, ["--version"]);
  expect(ownerOf(`${host}-${pid}`)).toEqual({ host, pid, state: "ended" });
  expect(ownerOf(`${host}-2-7`)).toEqual({ host: `${host}-2`, pid: 7, state: "elsewhere" });
  for (const text of ["", "host", "host-", "-7", "host-x", "host-0"]) {
    expect(ownerOf(text)).toBeUndefined();
  }
});
