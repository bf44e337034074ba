import { existsSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { cifarResNet } from "@espalier/vision";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { CHROMIUM, withPage } from "../fixtures/browser.ts";
import { writeSyntheticRun } from "../fixtures/synthetic-run.ts";
import { renderReport } from "./render-report.ts";

describe.skipIf(!existsSync(CHROMIUM))(`in Chromium (needs ${CHROMIUM})`, () => {
  let root: string;
  let url: string;
  beforeAll(async () => {
    root = await mkdtemp(join(tmpdir(), "espalier-page-"));
    const options = { family: cifarResNet, preset: "resnet20-cifar10", implant: 0.2, epochs: 3 };
    await writeSyntheticRun(join(root, "run"), options);
    url = pathToFileURL((await renderReport(join(root, "run"))).html).href;
  });
  afterAll(() => rm(root, { recursive: true, force: true }));

  test.each([
    [1200, "light"],
    [1200, "dark"],
    [390, "light"],
  ] as const)("%i pixels wide, %s: all is visible and nothing fails", async (width, scheme) => {
    await withPage(url, { width, scheme }, async ({ evaluate, problems }) => {
      const text = await evaluate("document.body.innerText");
      for (const expected of ["93.53 %", "87.61 %", "93.77 %", "× fewer", "layer3.2.conv1"]) {
        expect(text).toContain(expected);
      }
      const sizes = `[...document.querySelectorAll("svg.plot")].map((svg) => {
        const { width, height } = svg.getBoundingClientRect();
        return Math.min(width, height);
      })`;
      const folded = `document.querySelectorAll("details:not([open]) svg.plot").length`;
      expect(await evaluate(folded)).toBe(0);
      expect(Math.min(...((await evaluate(sizes)) as number[]))).toBeGreaterThan(10);
      // Nothing but tables and code may need scrolling sideways, and these within themselves.
      expect(await evaluate("document.documentElement.scrollWidth")).toBeLessThanOrEqual(width);
      const paper = await evaluate("getComputedStyle(document.body).backgroundColor");
      expect(paper).toBe(scheme === "dark" ? "rgb(20, 24, 28)" : "rgb(255, 255, 255)");
      expect(problems).toEqual([]);
    });
  });

  test("marks are read with the keyboard and the pointer, tables are sorted", async () => {
    await withPage(url, { width: 1200 }, async ({ evaluate, send, problems }) => {
      const press = async (key: string) => {
        for (const type of ["keyDown", "keyUp"]) {
          await send("Input.dispatchKeyEvent", { type, key, code: key });
        }
      };
      await evaluate(`document.querySelector(".panels").focus()`);
      await press("ArrowRight");
      expect(await evaluate(`document.querySelector("#tip").innerText`)).toMatch(
        /^conv1, component \d+: .* ± .*, (kept|removed|replaced by an implant)$/,
      );
      await press("ArrowDown");
      expect(await evaluate(`document.querySelector("#tip").innerText`)).toMatch(
        /^layer1\.0\.conv1/,
      );
      await press("Escape");
      expect(await evaluate(`document.querySelector("#tip").hidden`)).toBe(true);

      const place = `(() => {
        const mark = document.querySelector("[data-layer='layer3.2.conv1']");
        mark.scrollIntoView({ block: "center", behavior: "instant" });
        const { x, y, width, height } = mark.getBoundingClientRect();
        return { x: x + width / 2, y: y + height / 2 };
      })()`;
      const at = (await evaluate(place)) as object;
      await send("Input.dispatchMouseEvent", { type: "mouseMoved", ...at });
      expect(await evaluate(`document.querySelector("#tip").innerText`)).toMatch(
        /^layer3\.2\.conv1: 64 → \d+ channels/,
      );

      const removed = `(() => {
        const table = document.querySelector("#decisions table");
        table.tHead.rows[0].cells[4].querySelector("button").click();
        return [...table.tBodies[0].rows].map((row) => Number(row.cells[4].innerText));
      })()`;
      const sorted = (await evaluate(removed)) as number[];
      expect(sorted).toEqual([...sorted].sort((a, b) => a - b));
      expect(problems).toEqual([]);
    });
  });

  test("without JavaScript nothing is missing", async () => {
    await withPage(url, { width: 1200, javascript: false }, async ({ evaluate }) => {
      expect(await evaluate("document.querySelectorAll('svg.plot').length")).toBeGreaterThan(20);
      // The titles are there, for the browser to show.
      expect(await evaluate("document.querySelectorAll('.mark title').length")).toBeGreaterThan(
        448,
      );
      expect(await evaluate("document.body.innerText")).toContain("93.77 %");
    });
  });
});
