import { componentGroups } from "@espalier/core";
import { tinyResNet } from "@espalier/vision/testing";
import { expect, test } from "vitest";
import { decodeSensitivity, encodeSensitivity } from "./records.ts";

const groups = componentGroups(tinyResNet(), "together");
const sensitivity = {
  ...({ metric: "magnitude", temperature: 1, coupling: "together", samples: 8, draws: 0 } as const),
  ...{ negative: 0, rankStability: 1 },
  groups: groups.map((group) => ({
    group,
    scores: new Float64Array(group.count).fill(1),
    standardErrors: new Float64Array(group.count).fill(Number.NaN),
  })),
};
const record = JSON.parse(JSON.stringify(encodeSensitivity(sensitivity)));

test("scores are read as they were written", () => {
  expect(decodeSensitivity(record, groups, "scores.json")).toEqual(sensitivity);
});

test.each([
  [[], /^scores\.json: : /, "invalid-file"],
  [{ ...record, rankStability: undefined }, /^scores\.json: rankStability: /, "invalid-file"],
  [{ ...record, metric: "beauty" }, /^scores\.json: metric: /, "invalid-file"],
  [{ ...record, groups: [{}] }, /^scores\.json: groups\.0\.name: /, "invalid-file"],
  [{ ...record, groups: record.groups.slice(1) }, /expected scores and errors/, "mismatched-model"],
])("other files are refused by what is wrong in them, %#", (value, message, code) => {
  const decode = () => decodeSensitivity(value, groups, "scores.json");
  expect(decode).toThrow(message);
  expect(decode).toThrow(expect.objectContaining({ code }));
});
