/** @file JSON from outside, whose cost is known before it is parsed. */

export interface JsonLimits {
  /** Levels of arrays and objects; 64 unless it says otherwise. */
  readonly depth?: number | undefined;
  /** Values, those in others included; ten million unless it says otherwise. */
  readonly values?: number | undefined;
  /** Refuses keys given twice, of which JSON.parse silently keeps the last. */
  readonly uniqueKeys?: boolean | undefined;
}

// Configurations and records nest about ten deep; the largest tokenizers have two million values.
const DEPTH = 64;
const VALUES = 10_000_000;

/**
 * JSON.parse for texts from outside. JSON.parse takes gigabytes for millions of open brackets, and a
 * hundred bytes for two of the text where it is a list of empty objects.
 *
 * @throws SyntaxError for what is not JSON or beyond `limits`.
 */
export function parseJson(text: string, limits: JsonLimits = {}): unknown {
  expectWithin(text, limits);
  return JSON.parse(text);
}

/** Looks at brackets, commas and strings only: whether the rest is JSON is for JSON.parse to say. */
function expectWithin(
  text: string,
  { depth = DEPTH, values = VALUES, uniqueKeys = false }: JsonLimits,
): void {
  const levels: (Set<string> | undefined)[] = [];
  let separators = 0;
  for (let i = 0; i < text.length; i++) {
    const character = text[i];
    if (character === "{" || character === "[") {
      levels.push(undefined);
      separators++;
      if (levels.length > depth) throw new SyntaxError(`more than ${depth} levels`);
    } else if (character === "}" || character === "]") {
      levels.pop();
    } else if (character === ",") {
      separators++;
    } else if (character === '"') {
      const end = endOfString(text, i);
      if (uniqueKeys && isKey(text, end)) {
        // Two spellings of a key, one with escapes, are the same key.
        const key = JSON.parse(text.slice(i, end)) as string;
        const keys = (levels[levels.length - 1] ??= new Set());
        if (keys.has(key)) throw new SyntaxError(`the key ${key} twice`);
        keys.add(key);
      }
      i = end - 1;
    }
    // Each value is the whole, or follows a bracket or a comma.
    if (separators >= values) throw new SyntaxError(`more than ${values} values`);
  }
}

/** Index after the closing quote of the string whose opening quote is at `start`. */
function endOfString(text: string, start: number): number {
  let index = start + 1;
  while (index < text.length && text[index] !== '"') index += text[index] === "\\" ? 2 : 1;
  return index + 1;
}

const colon = /[ \t\r\n]*:/y;

function isKey(text: string, end: number): boolean {
  colon.lastIndex = end;
  return colon.test(text);
}
