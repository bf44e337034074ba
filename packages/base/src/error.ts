/** @file The one error class of Espalier. */

/**
 * What went wrong, for programs; the message says it for people. `invalid-argument` is the caller's
 * doing, `invalid-file` that of a file from outside.
 */
export type ErrorCode =
  | "aborted"
  | "disk-full"
  | "invalid-argument"
  | "invalid-file"
  | "invalid-graph"
  | "mismatched-model"
  | "missing-file"
  | "network"
  | "not-finite"
  | "occupied-directory"
  | "out-of-memory"
  | "runtime"
  | "unknown-device"
  | "unreachable-budget";

// Symbol.for is shared by all copies of this package in a process, so `isInstance` recognises
// errors from another copy, where `instanceof` does not.
const marker = Symbol.for("espalier.error");

/** Data for programs: the file, tensor, node or option an error is about, and the values involved. */
export type ErrorData = Readonly<Record<string, unknown>>;

export class EspalierError extends Error {
  readonly code: ErrorCode;
  readonly data: ErrorData;

  /** @param message One line: what was expected, what came, and where. */
  constructor(code: ErrorCode, message: string, data: ErrorData = {}, cause?: unknown) {
    super(message, cause === undefined ? undefined : { cause });
    this.name = "EspalierError";
    this.code = code;
    this.data = data;
    Object.defineProperty(this, marker, { value: true });
  }

  /** Whether `value` is an EspalierError of any copy of this package, with `code` if one is given. */
  static isInstance(value: unknown, code?: ErrorCode): value is EspalierError {
    return (
      typeof value === "object" &&
      value !== null &&
      (value as Record<symbol, unknown>)[marker] === true &&
      (code === undefined || (value as EspalierError).code === code)
    );
  }
}

/** Throws the `aborted` error if `signal` has been aborted. */
export function throwIfAborted(signal: AbortSignal | undefined): void {
  if (signal?.aborted) {
    throw new EspalierError("aborted", "interrupted", {}, signal.reason);
  }
}
