import { expect, test } from "vitest";
import { parseJson } from "./json.ts";

test.each(['{"a":[1,-2.5e3,"[{,\\"",{}],"b\\\\":null}', " [ [ ] , true ] ", '"\\"[[[["', "7"])(
  "parses %s within its limits",
  (text) => {
    expect(parseJson(text, { depth: 3 })).toEqual(JSON.parse(text));
  },
);

test.each(["", "[1", '{"a"', '"a', '"\\', "[1]]", "]]]]", "a", "[,]"])("refuses %j", (text) => {
  expect(() => parseJson(text)).toThrow(SyntaxError);
});

test.each([
  ["brackets, before they are parsed", "[".repeat(1e6), /more than 64 levels/],
  ["levels that close", `${"[".repeat(65)}${"]".repeat(65)}`, /more than 64 levels/],
  ["levels of objects", '{"a":'.repeat(65), /more than 64 levels/],
])("refuses many %s", (_, text, message) => {
  expect(() => parseJson(text)).toThrow(message);
});

test("counts values, those in others included", () => {
  const text = '[1,"a,b",{"c":[2]}]';
  expect(parseJson(text, { values: 6 })).toEqual(JSON.parse(text));
  expect(() => parseJson(text, { values: 5 })).toThrow(/more than 5 values/);
  expect(() => parseJson(`[${"{},".repeat(1e7)}{}]`)).toThrow(/more than 10000000 values/);
});

test("refuses keys given twice where it is asked to, however they are spelt", () => {
  const text = '{"a":1,"\\u0061" : 2}';
  expect(parseJson(text)).toEqual({ a: 2 });
  expect(() => parseJson(text, { uniqueKeys: true })).toThrow(/the key a twice/);
  const apart = '[{"a":"a"},{"a":{"a":"a"}}]';
  expect(parseJson(apart, { uniqueKeys: true })).toEqual(JSON.parse(apart));
});
