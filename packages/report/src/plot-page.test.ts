import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { CHROMIUM_NEEDED, chromium, type Page, withPage } from "../fixtures/browser.ts";
import { type PlotPageOptions, type PlotSection, plotPage } from "./plot-page.ts";

const evil = "</script><img src=x onerror=document.title='broken'>";
const section = (
  path: string[],
  names: string[],
  variants: (string | undefined)[],
): PlotSection => ({
  path,
  text: `What holds for ${path.join(" and ")}.`,
  plots: variants.map((variant, i) => ({
    title: `Plot ${i} of ${path.join(", ")}`,
    description: "Made up.",
    x: { label: "cost" },
    y: { label: "worth" },
    series: names.map((name, k) => ({
      name,
      points: [
        { x: 1, y: 50 + k, spread: 1, text: `${name}, small\n${variant} in ${path[0]}` },
        { x: 2, y: 60 + k + i },
      ],
      scattered: name === "published",
    })),
    variant,
  })),
});
const options: PlotPageOptions = {
  title: "Curves",
  lead: "How to read them.",
  choices: ["table", "data"],
  variants: { label: "accuracy", names: ["tuned", "as pruned"] },
  sections: [
    section(["one", "a"], ["removal", "random", "published"], ["tuned", "as pruned", undefined]),
    section(["one", "b"], ["removal"], ["tuned", "as pruned", undefined]),
    section(["two", "b"], [evil], [undefined]),
  ],
};

test("without anything measured the page says so", () => {
  expect(plotPage({ ...options, sections: [] })).toContain("Nothing is measured yet.");
});

test("a series that has points in one of the plots only is in the legend", () => {
  const [first] = options.sections;
  const [whole, ...others] = first.plots;
  const series = whole.series.map((each) => ({ ...each, points: [] }));
  const text = plotPage({
    ...options,
    sections: [{ ...first, plots: [{ ...whole, series }, ...others] }],
  });
  expect(text.match(/data-legend=/g)).toHaveLength(3);
});

describe.skipIf(chromium === undefined)(`in a browser (${CHROMIUM_NEEDED})`, () => {
  let root: string;
  let url: string;
  beforeAll(async () => {
    root = await mkdtemp(join(tmpdir(), "espalier-plots-"));
    const path = join(root, "index.html");
    await writeFile(path, plotPage(options));
    url = pathToFileURL(path).href;
  });
  afterAll(() => rm(root, { recursive: true, force: true }));

  const seen = (selector: string) =>
    `[...document.querySelectorAll("${selector}")].filter((each) => each.closest("[hidden]") === null)`;
  const titles = ({ evaluate }: Page) =>
    evaluate(`${seen(".chart h3")}.map((each) => each.innerText)`);
  const choose = ({ evaluate }: Page, label: string, name: string) =>
    evaluate(`(() => {
      const select = [...document.querySelectorAll("select")].find((each) => each.labels[0].innerText.startsWith("${label}"));
      select.value = "${name}";
      select.dispatchEvent(new Event("change", { bubbles: true }));
      return [...select.options].map((option) => option.value);
    })()`);

  test("the plots of what is chosen are shown, and nothing else", async () => {
    await withPage(url, { width: 1200 }, async (page) => {
      expect(await titles(page)).toEqual(["Plot 0 of one, a", "Plot 2 of one, a"]);
      expect(await choose(page, "accuracy", "as pruned")).toEqual(["tuned", "as pruned"]);
      expect(await titles(page)).toEqual(["Plot 1 of one, a", "Plot 2 of one, a"]);
      expect(await choose(page, "data", "b")).toEqual(["a", "b"]);
      expect(await titles(page)).toEqual(["Plot 1 of one, b", "Plot 2 of one, b"]);
      // What was chosen is kept where it can be, and what makes no difference is not asked.
      expect(await choose(page, "table", "two")).toEqual(["one", "two"]);
      expect(await titles(page)).toEqual(["Plot 0 of two, b"]);
      expect(await page.evaluate(`${seen("select")}.map((each) => each.value)`)).toEqual([
        "two",
        "b",
      ]);
      expect(page.problems).toEqual([]);
    });
  });

  test("marks are read with the pointer and the keys, without those that are switched off", async () => {
    await withPage(url, { width: 1200 }, async ({ evaluate, press, send, problems }) => {
      const tip = `document.querySelector("#tip").innerText`;
      await evaluate(`document.querySelector(".marks").focus()`);
      await press("ArrowRight");
      expect(await evaluate(tip)).toBe("removal, small\ntuned in one");
      await press("ArrowRight");
      expect(await evaluate(tip)).toBe("removal: 2, 60");
      await press("ArrowRight");
      expect(await evaluate(tip)).toContain("random, small");
      await press("End");
      // From the last mark of a plot to the next that is shown.
      await press("ArrowRight");
      expect(await evaluate(tip)).toBe("removal, small\nundefined in one");

      const legend = `${seen(".key button")}`;
      expect(await evaluate(`${legend}.map((each) => each.innerText)`)).toEqual([
        "removal",
        "random",
        "published",
      ]);
      await evaluate(`${legend}[0].click()`);
      expect(await evaluate(`${legend}[0].ariaPressed`)).toBe("false");
      expect(await evaluate(`${seen("[data-series=removal]")}.length`)).toBe(0);
      await evaluate(`document.querySelector(".marks").focus()`);
      await press("ArrowRight");
      expect(await evaluate(tip)).toContain("random, small");

      const at = await evaluate(`(() => {
        const { x, y, width, height } = ${seen("[data-series=published] .mark")}[1].getBoundingClientRect();
        return { x: x + width / 2, y: y + height / 2 };
      })()`);
      await send("Input.dispatchMouseEvent", { type: "mouseMoved", ...(at as object) });
      expect(await evaluate(tip)).toBe("published: 2, 62");
      await evaluate(`${legend}[0].click()`);
      expect(await evaluate(`${seen("[data-series=removal]")}.length`)).toBe(2);
      expect(problems).toEqual([]);
    });
  });

  test.each([
    [1200, "dark"],
    [390, "light"],
  ] as const)("%i pixels wide, %s: all has a name and fits", async (width, scheme) => {
    await withPage(url, { width, scheme }, async ({ evaluate, send, problems, requests }) => {
      expect(await evaluate("document.documentElement.scrollWidth")).toBeLessThanOrEqual(width);
      const colours = `${seen(".chart g[stroke] line")}.map((line) => getComputedStyle(line).stroke)`;
      expect(new Set((await evaluate(colours)) as string[])).toContain(
        scheme === "dark" ? "rgb(52, 60, 68)" : "rgb(217, 222, 227)",
      );
      await send("Accessibility.enable");
      const { nodes } = (await send("Accessibility.getFullAXTree")) as unknown as {
        nodes: { role: { value: string }; name?: { value: string }; ignored: boolean }[];
      };
      const roles = ["combobox", "button", "image", "region", "group"];
      const named = nodes.filter(({ role, ignored }) => !ignored && roles.includes(role.value));
      expect(new Set(named.map(({ role }) => role.value))).toEqual(new Set(roles));
      expect(named.filter(({ name }) => !name?.value)).toEqual([]);
      expect(problems).toEqual([]);
      expect(requests).toEqual([url]);
    });
  });

  test("text stays text, and without JavaScript all plots are there", async () => {
    await withPage(url, { width: 1200 }, async (page) => {
      await choose(page, "table", "two");
      expect(await page.evaluate(`${seen(".key button")}.map((each) => each.innerText)`)).toEqual([
        evil,
      ]);
      expect(await page.evaluate("document.images.length")).toBe(0);
      expect(await page.evaluate("document.title")).toBe("Curves");
    });
    await withPage(url, { width: 1200, javascript: false }, async (page) => {
      expect(await titles(page)).toHaveLength(7);
      expect(await page.evaluate(`${seen(".choices")}.length`)).toBe(0);
      expect(await page.evaluate("document.querySelectorAll('.mark title').length")).toBe(26);
    });
  });
});
