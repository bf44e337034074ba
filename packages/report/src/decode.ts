/** @file Reads JSON whose shape must be checked before it is believed. */
import { EspalierError, quote, readJson, show } from "@espalier/base";

/** Gives `value` its type, or throws a Mismatch that names the place `at`. */
export type Decoder<T> = (value: unknown, at: string) => T;

class Mismatch extends Error {}

function mismatch(expected: string, value: unknown, at: string): never {
  throw new Mismatch(`${at === "" ? "" : `${at}: `}expected ${expected}, got ${show(value)}`);
}

export const number: Decoder<number> = (value, at) =>
  Number.isFinite(value) ? (value as number) : mismatch("a finite number", value, at);

export const boolean: Decoder<boolean> = (value, at) =>
  typeof value === "boolean" ? value : mismatch("true or false", value, at);

/** A whole number that counts something. */
export const count: Decoder<number> = (value, at) =>
  Number.isSafeInteger(value) && (value as number) >= 0
    ? (value as number)
    : mismatch("a whole number", value, at);

/** A count of what there is at least one of. */
export const positive: Decoder<number> = (value, at) =>
  value === 0 ? mismatch("a whole number above 0", value, at) : count(value, at);

// Sums of floating-point numbers end a little beyond what they would be.
const ROUNDING = 1e-9;

export function between(low: number, high: number): Decoder<number> {
  return (value, at) => {
    const given = number(value, at);
    return given >= low - ROUNDING && given <= high + ROUNDING
      ? given
      : mismatch(`a number from ${low} to ${high}`, value, at);
  };
}

export const string: Decoder<string> = (value, at) =>
  typeof value === "string" ? value : mismatch("a string", value, at);

/** One of a few strings. */
export function oneOf<const T extends string>(choices: readonly T[]): Decoder<T> {
  return (value, at) =>
    choices.find((choice) => choice === value) ?? mismatch(choices.join(" or "), value, at);
}

export function nullable<T>(inner: Decoder<T>): Decoder<T | null> {
  return (value, at) => (value === null ? null : inner(value, at));
}

export function optional<T>(inner: Decoder<T>): Decoder<T | undefined> {
  return (value, at) => (value === undefined ? undefined : inner(value, at));
}

export function list<T>(inner: Decoder<T>): Decoder<T[]> {
  return (value, at) =>
    Array.isArray(value)
      ? value.map((item, i) => inner(item, `${at}[${i}]`))
      : mismatch("a list", value, at);
}

export function pair<T>(inner: Decoder<T>): Decoder<readonly [T, T]> {
  return (value, at) =>
    Array.isArray(value) && value.length === 2
      ? [inner(value[0], `${at}[0]`), inner(value[1], `${at}[1]`)]
      : mismatch("a list of two", value, at);
}

/** An object, whatever is in it. */
export const anything: Decoder<Readonly<Record<string, unknown>>> = (value, at) =>
  typeof value === "object" && value !== null && !Array.isArray(value)
    ? (value as Record<string, unknown>)
    : mismatch("an object", value, at);

function below(at: string, key: string): string {
  return at === "" ? key : `${at}.${key}`;
}

/** An object with any keys and values of one type. */
export function record<T>(inner: Decoder<T>): Decoder<Record<string, T>> {
  return (value, at) =>
    Object.fromEntries(
      Object.entries(anything(value, at)).map(([key, item]) => [
        key,
        inner(item, below(at, /^[\w.:/#-]{1,80}$/.test(key) ? key : quote(key))),
      ]),
    );
}

/** An object with the given fields; others are ignored. */
export function object<T>(fields: { readonly [K in keyof T]-?: Decoder<T[K]> }): Decoder<T> {
  return (value, at) => {
    const given = anything(value, at);
    return Object.fromEntries(
      Object.entries<Decoder<unknown>>(fields).flatMap(([key, inner]) => {
        const item = inner(given[key], below(at, key));
        return item === undefined ? [] : [[key, item]];
      }),
    ) as T;
  };
}

/**
 * The content of a JSON file.
 *
 * @throws EspalierError `missing-file`, or `invalid-file` naming the file, the field and what was
 *   expected there.
 */
export async function readDecoded<T>(path: string, decoder: Decoder<T>): Promise<T> {
  return decode(await readJson(path), path, decoder);
}

/** As `readDecoded`, of what was read already. */
export function decode<T>(value: unknown, path: string, decoder: Decoder<T>): T {
  try {
    return decoder(value, "");
  } catch (error) {
    if (!(error instanceof Mismatch)) throw error;
    throw new EspalierError("invalid-file", `${path}: ${error.message}`, { path }, error);
  }
}
