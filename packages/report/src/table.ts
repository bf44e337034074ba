/** @file Tables that the reader can sort. */
import { type Content, type Html, html } from "./html.ts";

/** A table that can be sorted by its columns. */
export function table(head: readonly Content[], rows: readonly Html[], name: string): Html {
  return html`<div class="scroll" tabindex="0" role="region" aria-label="${name}"><table class="sortable"><thead><tr>${head.map((title) => html`<th scope="col"${title === "" && " data-fixed"}>${title}</th>`)}</tr></thead><tbody>${rows}</tbody></table></div>`;
}
