import { quote, show } from "@espalier/base";
import { expect, test } from "vitest";

test.each([
  ["conv1.weight", '"conv1.weight"'],
  ["", '""'],
  ["größe 🌳", '"größe 🌳"'],
  ['a "b"\n', '"a \\"b\\"\\n"'],
  ["\x1b[2J\x9b\x7f", '"\\u001b[2J\\u{9b}\\u{7f}"'],
  ["\u202ereversed\u2028", '"\\u{202e}reversed\\u{2028}"'],
  ["x".repeat(1000), `"${"x".repeat(80)}…"`],
])("%j", (text, quoted) => {
  expect(quote(text)).toBe(quoted);
});

test.each([
  [undefined, "nothing"],
  [{ shape: [1, 2] }, '{"shape":[1,2]}'],
  ["\x9b", '"\\u{9b}"'],
])("%j as a value", (value, shown) => {
  expect(show(value)).toBe(shown);
});
