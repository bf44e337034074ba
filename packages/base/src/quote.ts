/** @file Foreign text and values, as they may stand in a one-line message. */

const LONGEST = 80;

/** Quoted and cut to a length that fits a line. */
export function quote(text: string): string {
  return printable(JSON.stringify(cut(text)));
}

/** A value from JSON, cut likewise. */
export function show(value: unknown): string {
  return printable(cut(JSON.stringify(value) ?? "nothing"));
}

const MOST_NAMES = 8;

/** Some of `names`, those that are no plain words quoted. */
export function showNames(names: readonly string[], joiner = ", "): string {
  const some = names
    .slice(0, MOST_NAMES)
    .map((name) => (/^[\w #.-]{1,40}$/.test(name) ? name : quote(name)));
  return [...some, ...(names.length > MOST_NAMES ? ["…"] : [])].join(joiner);
}

function cut(text: string): string {
  return text.length > LONGEST ? `${text.slice(0, LONGEST)}…` : text;
}

/** Escapes what steers a terminal or breaks a line; JSON escapes only half of it. */
function printable(text: string): string {
  return text.replaceAll(
    /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu,
    (character) => `\\u{${character.codePointAt(0)!.toString(16)}}`,
  );
}
