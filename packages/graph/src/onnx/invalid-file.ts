/** @file How a file from outside is refused: in one line that names it. */
import { type ErrorData, EspalierError } from "@espalier/base";

/** Makes the error to throw. */
export type Fail = (message: string, data?: ErrorData, cause?: unknown) => EspalierError;

/** Errors about the file `origin`. */
export function failIn(origin: string): Fail {
  return (message, data = {}, cause = undefined) =>
    new EspalierError("invalid-file", `${origin}: ${message}`, { path: origin, ...data }, cause);
}
