/** @file What the signals that ask a process to end do. */

const signals = ["SIGINT", "SIGTERM"] as const;

/** As shells give it for SIGINT. */
export const INTERRUPTED = 130;

// The first process of a container cannot send itself a signal that nobody handles.
const GRACE_MS = 100;

/**
 * Calls `stop` at the first SIGINT or SIGTERM; the second ends the process at once, whatever it computes.
 *
 * @returns A function after which signals do again what they did before.
 */
export function onInterrupt(stop: () => void): () => void {
  let stopping = false;
  const interrupt = (signal: NodeJS.Signals) => {
    if (stopping) {
      forget();
      process.kill(process.pid, signal);
      setTimeout(() => process.exit(INTERRUPTED), GRACE_MS);
      return;
    }
    stopping = true;
    stop();
  };
  const forget = () => {
    for (const signal of signals) process.off(signal, interrupt);
  };
  for (const signal of signals) process.on(signal, interrupt);
  return forget;
}
