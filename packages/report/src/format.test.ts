import fc from "fast-check";
import { expect, test } from "vitest";
import {
  formatBytes,
  formatChange,
  formatLarge,
  formatNumber,
  formatPercent,
  formatPower,
} from "./format.ts";

test.each([
  [93.53, 93.77, "+0.24"],
  [93.77, 93.53, "−0.24"],
  [92.6, 92.6, "±0.00"],
  [92.604, 92.596, "±0.00"],
  // Shown as 93.53 and 93.77.
  [93.534, 93.766, "+0.24"],
])("the change from %f to %f is %s", (before, after, change) => {
  expect(formatChange(before, after, 2)).toBe(change);
});

test("a change is what one gets by subtracting the numbers as shown", () => {
  const share = fc.double({ min: 0, max: 1, noNaN: true });
  fc.assert(
    fc.property(share, share, (before, after) => {
      const shown = [before, after].map((value) => Number(formatPercent(value).slice(0, -2)));
      const text = formatChange(100 * before, 100 * after, 2)
        .replace("−", "-")
        .replace("±", "");
      expect(Number(text)).toBeCloseTo(shown[1] - shown[0], 8);
    }),
  );
});

test("sizes have three significant digits and the right prefix", () => {
  expect(formatLarge(40_813_184)).toBe("40.8 M");
  expect(formatLarge(999_999)).toBe("1.00 M");
  expect(formatLarge(512)).toBe("512");
  expect(formatBytes(1_105_248)).toBe("1.11 MB");
  expect(formatBytes(12)).toBe("12 B");
});

test("numbers keep what is before the point", () => {
  expect(formatNumber(12_345.6)).toBe("12,346");
  expect(formatNumber(0.456591)).toBe("0.457");
  expect(formatNumber(-0.0000012345)).toBe("−1.23e-6");
  expect(formatNumber(0)).toBe("0");
});

test("powers of ten", () => {
  expect([1e-12, 0.01, 1, 10, 1000].map(formatPower)).toEqual(["10⁻¹²", "10⁻²", "1", "10", "10³"]);
});
