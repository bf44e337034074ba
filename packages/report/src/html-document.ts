/** @file HTML files that need nothing else, and in which nothing but their own script runs. */
import { createHash } from "node:crypto";
import { Html, html } from "./html.ts";

export interface HtmlDocument {
  readonly title: string;
  readonly style: string;
  /** Runs once the body is there. */
  readonly script: string;
  readonly body: Html;
}

/** The text of the file. */
export function htmlDocument({ title, style, script, body }: HtmlDocument): string {
  return html`<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; base-uri 'none'; form-action 'none'; style-src '${hashOf(style)}'; script-src '${hashOf(script)}'">
<meta name="viewport" content="width=device-width,initial-scale=1">
<meta name="generator" content="Espalier">
<title>${title}</title>
<style>${new Html(style)}</style>
</head>
<body>
${body}
<script>${new Html(script)}</script>
</body>
</html>
`.text;
}

/** How a content security policy names an inline script or style. */
function hashOf(text: string): string {
  return `sha256-${createHash("sha256").update(text).digest("base64")}`;
}
