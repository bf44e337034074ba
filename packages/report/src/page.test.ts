import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { readJson } from "@espalier/base";
import type { BudgetsRecord } from "@espalier/pipeline";
import { cifarResNet, resNet } from "@espalier/vision";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { CHROMIUM_NEEDED, chromium, type Page, withPage } from "../fixtures/browser.ts";
import { renameGroup, type SyntheticRun, writeSyntheticRun } from "../fixtures/synthetic-run.ts";
import { renderReport } from "./render-report.ts";

describe.skipIf(chromium === undefined)(`in a browser (${CHROMIUM_NEEDED})`, () => {
  let root: string;
  let url: string;
  const write = async (name: string, options: SyntheticRun) => {
    await writeSyntheticRun(join(root, name), options);
    return pathToFileURL((await renderReport(join(root, name))).html).href;
  };
  beforeAll(async () => {
    root = await mkdtemp(join(tmpdir(), "espalier-page-"));
    url = await write("run", {
      ...{ family: cifarResNet, preset: "resnet20-cifar10", implant: 0.2, epochs: 3 },
    });
  });
  afterAll(() => rm(root, { recursive: true, force: true }));

  const tip = `document.querySelector("#tip").innerText`;
  const focus = (selector: string) => `document.querySelector("${selector}").focus()`;
  /** Kept, implants and removed of each row, as the page shows them. */
  const counts = async ({ evaluate }: Page) =>
    (await evaluate(
      `[...document.querySelectorAll("tr[data-group]")].map((row) =>
        ["keep", "implant", "prune"].map((name) => Number(row.querySelector("[data-count=" + name + "]").innerText)))`,
    )) as number[][];

  test.each([
    [1200, "light"],
    [1200, "dark"],
    [390, "light"],
  ] as const)("%i pixels wide, %s: all is visible and nothing fails", async (width, scheme) => {
    await withPage(url, { width, scheme }, async ({ evaluate, problems, requests }) => {
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
      // Nothing but itself is loaded.
      expect(requests).toEqual([url]);
    });
  });

  test("everything that can be used is reached by Tab, is seen to be, and has a name", async () => {
    await withPage(url, { width: 1200 }, async ({ evaluate, press, send, problems }) => {
      const usable = `[...document.querySelectorAll("a[href], button, input, summary, [tabindex='0']")]
        .filter((element) => element.checkVisibility())`;
      const expected = Number(await evaluate(`${usable}.length`));
      await evaluate(`void (window.reached = [])`);
      for (let i = 0; i < expected; i++) {
        await press("Tab");
        await evaluate(`void window.reached.push(document.activeElement)`);
      }
      expect(await evaluate(`new Set(window.reached).size`)).toBe(expected);
      // In the order in which they stand in the page.
      expect(await evaluate(`${usable}.every((element, i) => window.reached[i] === element)`)).toBe(
        true,
      );
      await evaluate(focus("#budget-slider"));
      await press("Tab");
      await press("Tab", true);
      expect(await evaluate("document.activeElement.id")).toBe("budget-slider");
      expect(await evaluate("getComputedStyle(document.activeElement).outlineStyle")).toBe("solid");

      await send("Accessibility.enable");
      const { nodes } = (await send("Accessibility.getFullAXTree")) as unknown as {
        nodes: { role: { value: string }; name?: { value: string }; ignored: boolean }[];
      };
      const named = nodes.filter(({ role, ignored }) =>
        ignored ? false : ["slider", "button", "link", "image", "region"].includes(role.value),
      );
      expect(new Set(named.map(({ role }) => role.value))).toEqual(
        new Set(["slider", "button", "link", "image", "region"]),
      );
      expect(named.filter(({ name }) => !name?.value)).toEqual([]);
      expect(problems).toEqual([]);
    });
  });

  test("components are read with the keyboard and the pointer, tables are sorted", async () => {
    await withPage(url, { width: 1200 }, async ({ evaluate, press, send, problems }) => {
      const shown = /^(\S+), component \d+: \S+ ± \S+, (kept|removed|replaced by an implant)$/;
      for (const figure of [".panels", ".budgets .marks"]) {
        await evaluate(focus(figure));
        await press("ArrowRight");
        const first = (await evaluate(tip)) as string;
        expect(first.match(shown)?.[1]).toBe("conv1");
        await press("ArrowRight");
        expect(await evaluate(tip)).not.toBe(first);
        await press("ArrowDown");
        expect(((await evaluate(tip)) as string).match(shown)?.[1]).toBe("layer1.0.conv1");
        await press("End");
        await press("ArrowRight");
        expect(((await evaluate(tip)) as string).match(shown)?.[1]).toBe("layer1.1.conv1");
        await press("Home");
        await press("PageDown");
        expect(
          await evaluate(`document.querySelectorAll(".cursor[visibility=visible]").length`),
        ).toBe(1);
        await press("Escape");
        expect(await evaluate(`document.querySelector("#tip").hidden`)).toBe(true);
      }

      const pointAt = async (selector: string) => {
        const place = `(() => {
          const element = document.querySelector("${selector}");
          element.scrollIntoView({ block: "center", behavior: "instant" });
          const { x, y, width, height } = element.getBoundingClientRect();
          return { x: x + width - 1, y: y + height / 2 };
        })()`;
        const at = (await evaluate(place)) as object;
        await send("Input.dispatchMouseEvent", { type: "mouseMoved", ...at });
        return evaluate(tip);
      };
      expect(await pointAt("[data-layer='layer3.2.conv1']")).toMatch(
        /^layer3\.2\.conv1: 64 → \d+ channels/,
      );
      // The most sensitive component of all strips is on the right.
      const text = `JSON.parse(document.getElementById("data").textContent).groups[0]`;
      const score = await evaluate(`${text}.scores.at(-1)`);
      expect(await pointAt("[data-strip='0']")).toContain(`: ${score} ±`);
      expect(await pointAt("[data-scores='0']")).toContain(`: ${score} ±`);

      const removed = `(() => {
        const table = document.querySelector(".budgets table");
        table.tHead.rows[0].cells[4].querySelector("button").click();
        return [...table.tBodies[0].rows].map((row) => Number(row.cells[4].innerText));
      })()`;
      const sorted = (await evaluate(removed)) as number[];
      expect(sorted).toEqual([...sorted].sort((a, b) => a - b));
      expect(problems).toEqual([]);
    });
  });

  test("the slider shows the recorded plans, by arrow keys", async () => {
    const { budgets } = (await readJson(join(root, "run", "budgets.json"))) as BudgetsRecord;
    await withPage(url, { width: 1200 }, async (page) => {
      const { evaluate, press, problems } = page;
      const run = await counts(page);
      const note = () => evaluate(`document.querySelector("#budget-note").innerText`);
      expect(await note()).toBe("as in this run");
      await evaluate(focus("#budget-slider"));
      await press("ArrowLeft");
      const below = budgets.filter(({ keep }) => keep < 0.5).sort((a, b) => b.keep - a.keep)[0];
      expect(await note()).toBe("predicted, not what this run did");
      expect(await evaluate(`document.querySelector("#budget-slider").ariaValueText`)).toMatch(
        new RegExp(`^${100 * below.keep} % of the multiply-accumulates: `),
      );
      expect(await evaluate(`document.querySelector("[data-fact=macs]").innerText`)).toBe(
        below.after.macs.toLocaleString("en"),
      );
      expect(await evaluate(`document.querySelector("[data-fact=parameters]").innerText`)).toBe(
        below.after.parameters.toLocaleString("en"),
      );
      const sum = (runs: readonly number[], first: number) =>
        runs.reduce((total, length, i) => total + (i % 3 === first ? length : 0), 0);
      expect(await counts(page)).toEqual(
        Object.values(below.groups).map((runs) => [sum(runs, 2), sum(runs, 1), sum(runs, 0)]),
      );
      expect(await counts(page)).not.toEqual(run);
      // A strip is as wide as its counts say.
      const widths = (await evaluate(`[...document.querySelectorAll("[data-strip]")].map((plot) =>
        ["keep", "implant", "prune"].map((name) =>
          [...plot.querySelectorAll(".strip ." + name)].reduce((sum, part) => sum + parseFloat(part.getAttribute("width")), 0)))`)) as number[][];
      const shown = await counts(page);
      widths.forEach((parts, k) => {
        const whole = shown[k].reduce((a, b) => a + b);
        parts.forEach((width, i) => {
          expect(width).toBeCloseTo((100 * shown[k][i]) / whole, 6);
        });
      });
      // And tells what would happen to a component: with everything kept, all are.
      await press("End");
      await evaluate(focus(".budgets .marks"));
      await press("ArrowRight");
      expect(await evaluate(tip)).toMatch(/, kept$/);

      await evaluate(`document.querySelector("#budget-reset").click()`);
      expect(await counts(page)).toEqual(run);
      expect(await note()).toBe("as in this run");
      expect(await evaluate("document.activeElement.id")).toBe("budget-slider");
      expect(problems).toEqual([]);
    });
  });

  test("a ResNet-50 with 26,560 components does not stall", async () => {
    const large = await write("large", {
      ...{
        family: resNet,
        preset: "resnet50-imagenet",
        coupling: "apart",
        implant: 0.1,
        budgets: [0.3, 0.7],
      },
    });
    await withPage(large, { width: 1200 }, async ({ evaluate, problems }) => {
      expect(await evaluate(`document.querySelectorAll("*").length`)).toBeLessThan(10_000);
      const move = `new Promise((resolve) => {
        const slider = document.querySelector("#budget-slider");
        slider.value = 2;
        const start = performance.now();
        slider.dispatchEvent(new Event("input"));
        requestAnimationFrame(() => setTimeout(() => resolve(performance.now() - start)));
      })`;
      // About 50 ms; machines that test are busy.
      expect(await evaluate(move)).toBeLessThan(1000);
      expect(problems).toEqual([]);
    });
  });

  test("text from files stays text in the page, too", async () => {
    const evil = "</script><img src=x onerror=document.title='broken'>";
    const directory = join(root, "evil");
    await writeSyntheticRun(directory, { family: cifarResNet, preset: "resnet20-cifar10" });
    await renameGroup(directory, "conv1", evil);
    const page = pathToFileURL((await renderReport(directory)).html).href;
    await withPage(page, { width: 1200 }, async ({ evaluate, press, problems, requests }) => {
      await evaluate(focus(".panels"));
      await press("ArrowRight");
      expect(await evaluate(tip)).toContain(`${evil}, component`);
      expect(await evaluate("document.images.length")).toBe(0);
      expect(await evaluate("document.title")).not.toBe("broken");
      expect(requests).toEqual([page]);
      expect(problems).toEqual([]);
    });
  });

  test("without JavaScript all figures and tables are there", async () => {
    await withPage(url, { width: 1200, javascript: false }, async ({ evaluate }) => {
      expect(await evaluate("document.querySelectorAll('svg.plot').length")).toBeGreaterThan(20);
      // The titles are there, for the browser to show.
      expect(await evaluate("document.querySelectorAll('.mark title').length")).toBeGreaterThan(30);
      expect(await evaluate("document.body.innerText")).toContain("93.77 %");
      expect(await evaluate("document.querySelector('#budget').checkVisibility()")).toBe(false);
      expect(await evaluate("document.querySelectorAll('tr[data-budget]').length")).toBeGreaterThan(
        10,
      );
    });
  });
});
