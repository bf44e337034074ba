import { describe, expect, test } from "vitest";
import { headsFigure } from "./heads-figure.ts";
import type { GroupSummary } from "./summary.ts";

const layer = (number: number, scores: readonly number[]): GroupSummary => ({
  name: `bert.encoder.layer.${number}.attention.self.value`,
  kind: "head",
  layers: [`bert.encoder.layer.${number}.attention.self.value`],
  components: scores.length,
  scores,
  standardErrors: scores.map((score, i) => (i === 0 ? null : score / 10)),
  decisions: scores.map((_, i) => (["prune", "implant", "keep"] as const)[i]),
  counts: { keep: 1, implant: 1, prune: 1 },
  ranks: scores.map((_, i) => (i === 1 ? 8 : undefined)),
});

describe("the grid of heads", () => {
  const groups = [layer(0, [1e-4, 2e-3, 3e-2]), layer(11, [1e-3, 1e-2, 1e-1])];
  const { text } = headsFigure(groups, "removal")!;

  test("has a cell for each head, with its score, error and fate", () => {
    expect(text.match(/data-head=/g)).toHaveLength(6);
    expect(text).toContain("<title>Layer 11, head 2: 0.1 ± 0.01, kept</title>");
    expect(text).toMatch(/<title>Layer 0, head 0: [^±<]*, removed<\/title>/);
    expect(text).toContain("6 heads in 2 layers");
  });

  test("says at which rank implants attend", () => {
    expect(text).toContain(
      "<title>Layer 0, head 1: 0.002 ± 2.00e-4, replaced by an implant, rank 8</title>",
    );
    expect(text.match(/class="rank"[^>]*>8</g)).toHaveLength(2);
  });

  test("is the stronger, the higher the score, and tells fates without colour", () => {
    const strengths = [...text.matchAll(/opacity="([\d.]+)"/g)].map(([, value]) => Number(value));
    expect(strengths).toHaveLength(6);
    expect(Math.max(...strengths)).toBe(strengths[5]);
    expect(Math.min(...strengths)).toBe(strengths[0]);
    expect(text.match(/class="gone"/g)).toHaveLength(2);
    expect(text.match(/class="frame"/g)).toHaveLength(2);
  });

  test("is for heads alone", () => {
    const channels = groups.map((group) => ({ ...group, kind: "channel" as const }));
    expect(headsFigure(channels, "removal")).toBeUndefined();
    const unscored = { ...layer(0, [1, 2, 3]), scores: undefined, standardErrors: undefined };
    expect(headsFigure([unscored], "removal")).toBeUndefined();
  });
});
