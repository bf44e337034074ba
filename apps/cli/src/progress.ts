/** @file Progress bars on a terminal, and plain lines elsewhere. */
import { formatBytes } from "@espalier/report";

export interface ProgressUpdate {
  readonly label: string;
  readonly done: number;
  /** Undefined where it is not known. */
  readonly total: number | undefined;
  readonly unit: string;
  /** Shown behind the bar. */
  readonly note?: string;
}

export interface Progress {
  update(update: ProgressUpdate): void;
  /** A line that stays. */
  log(line: string): void;
  /** Ends the present bar, leaving it in its last state. */
  end(): void;
}

const WIDTH = 24;
const REDRAW_MILLISECONDS = 100;
// Where no bar can be redrawn, a line is written this often.
const LINE_MILLISECONDS = 15_000;

/** "1:02" or "1:02:03". */
export function formatDuration(seconds: number): string {
  if (!Number.isFinite(seconds)) return "?";
  const whole = Math.round(seconds);
  const minutes = Math.floor(whole / 60) % 60;
  const hours = Math.floor(whole / 3600);
  const two = (n: number) => String(n).padStart(2, "0");
  return hours > 0
    ? `${hours}:${two(minutes)}:${two(whole % 60)}`
    : `${minutes}:${two(whole % 60)}`;
}

function formatCount(count: number, unit: string): string {
  return unit === "bytes" ? formatBytes(count) : `${Math.round(count * 10) / 10} ${unit}`;
}

/** The text of one update: what, how far, how fast, how long still. */
export function renderProgress(
  update: ProgressUpdate,
  seconds: number,
  doneBefore: number,
): string {
  const { label, done, total, unit, note } = update;
  const rate = seconds > 0 ? (done - doneBefore) / seconds : 0;
  const speed = rate > 0 ? `, ${formatCount(rate, unit)}/s` : "";
  const tail = note === undefined ? "" : ` ${note}`;
  if (total === undefined || total === 0) {
    return `${label} ${formatCount(done, unit)}${speed}${tail}`;
  }
  const share = Math.min(1, done / total);
  const filled = Math.round(share * WIDTH);
  const bar = "█".repeat(filled) + "░".repeat(WIDTH - filled);
  const left = rate > 0 ? `, ${formatDuration((total - done) / rate)} left` : "";
  const count =
    unit === "bytes" ? `${formatBytes(done)}/${formatBytes(total)}` : `${done}/${total}`;
  const percent = String(Math.floor(share * 100)).padStart(3);
  return `${label.padEnd(12)} ${percent}% ${bar} ${count} [${formatDuration(seconds)}${left}${speed}]${tail}`;
}

/**
 * Bars on `stream`. Where it is not a terminal, a line now and then.
 *
 * @param enabled Without it only logged lines appear.
 */
export function createProgress(
  stream: { write(text: string): unknown; isTTY?: boolean; columns?: number },
  enabled: boolean,
): Progress {
  let label: string | undefined;
  let start = 0;
  let startDone = 0;
  let drawn = 0;
  let last: string | undefined;
  const terminal = stream.isTTY === true;
  const clear = () => {
    if (terminal && last !== undefined) stream.write("\r\u001b[2K");
  };
  const end = () => {
    if (last !== undefined) stream.write(terminal ? "\n" : "");
    [label, last] = [undefined, undefined];
  };
  return {
    update: (update) => {
      if (!enabled) return;
      const now = performance.now();
      if (update.label !== label) {
        end();
        [label, start, startDone, drawn] = [update.label, now, update.done, 0];
        if (!terminal) drawn = now;
      }
      const complete = update.total !== undefined && update.done >= update.total;
      const interval = terminal ? REDRAW_MILLISECONDS : LINE_MILLISECONDS;
      if (!complete && now - drawn < interval) return;
      drawn = now;
      const text = renderProgress(update, (now - start) / 1000, startDone);
      if (terminal) {
        clear();
        last = text.slice(0, (stream.columns ?? 80) - 1);
        stream.write(last);
      } else {
        stream.write(`${text}\n`);
      }
    },
    log: (line) => {
      clear();
      stream.write(`${line}\n`);
      if (terminal && last !== undefined) stream.write(last);
    },
    end,
  };
}
