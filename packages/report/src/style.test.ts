import { describe, expect, test } from "vitest";
import { type Theme, themes } from "./style.ts";

/** WCAG 2.2, relative luminance. */
function luminance(colour: string): number {
  const [r, g, b] = [1, 3, 5].map((at) => {
    const value = Number.parseInt(colour.slice(at, at + 2), 16) / 255;
    return value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}

function contrast(a: string, b: string): number {
  const [dark, light] = [luminance(a), luminance(b)].sort((x, y) => x - y);
  return (light + 0.05) / (dark + 0.05);
}

describe.each(["light", "dark"] as const)("%s theme", (name) => {
  const theme = themes[name];
  const texts: (keyof Theme)[] = ["ink", "quiet", "link", "keep", "heldOut"];
  test.each(texts)("%s can be read on paper and panels", (role) => {
    expect(contrast(theme[role], theme.paper)).toBeGreaterThanOrEqual(4.5);
    if (role !== "keep" && role !== "heldOut") {
      expect(contrast(theme[role], theme.panel)).toBeGreaterThanOrEqual(4.5);
    }
  });

  test.each(["keep", "implant", "prune"] as const)("marks of %s stand out", (role) => {
    expect(contrast(theme[role], theme.paper)).toBeGreaterThanOrEqual(3);
  });
});
