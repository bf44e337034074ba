import fc from "fast-check";
import { expect, test } from "vitest";
import { html } from "./html.ts";

test("values are escaped, HTML is not", () => {
  const inner = html`<b>${"<i>"}</b>`;
  expect(html`<p title="${`"'`}">${inner}${["&", 1, undefined, false]}</p>`.text).toBe(
    '<p title="&quot;&#39;"><b>&lt;i&gt;</b>&amp;1</p>',
  );
});

test("no text breaks out of an attribute or an element", () => {
  fc.assert(
    fc.property(fc.string(), (text) => {
      expect(html`${text}`.text).not.toMatch(/[<>"']/);
    }),
  );
});
