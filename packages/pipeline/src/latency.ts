/** @file How long models take, measured side by side. */
import { setTimeout } from "node:timers/promises";

/** Something that can be run and timed. */
export interface Timed {
  run(): Promise<unknown>;
}

export interface Latency {
  /** Median of all runs, in milliseconds. */
  readonly median: number;
  /** First and third quartile. */
  readonly quartiles: readonly [number, number];
  readonly runs: number;
}

// Runtimes keep their threads spinning for a while after a run, which would slow whatever runs next.
const PAUSE_MILLISECONDS = 20;
const RUNS_PER_TURN = 4;

/**
 * Times several candidates in turn, a few runs of each, so that a machine whose speed drifts is fair
 * to all. Before each turn comes a pause and a run that does not count.
 *
 * @param seconds How long to go on, in all; at least 3 turns of each.
 */
export async function measureLatencies(
  candidates: readonly Timed[],
  seconds: number,
): Promise<Latency[]> {
  const times = candidates.map((): number[] => []);
  const end = performance.now() + seconds * 1000;
  for (let turn = 0; turn < 3 || performance.now() < end; turn++) {
    for (const [i, candidate] of candidates.entries()) {
      await setTimeout(PAUSE_MILLISECONDS);
      await candidate.run();
      for (let run = 0; run < RUNS_PER_TURN; run++) {
        const start = performance.now();
        await candidate.run();
        times[i].push(performance.now() - start);
      }
    }
  }
  return times.map((list) => {
    const sorted = list.sort((a, b) => a - b);
    const at = (share: number) => sorted[Math.floor(share * (sorted.length - 1))];
    return { median: at(0.5), quartiles: [at(0.25), at(0.75)], runs: sorted.length };
  });
}
