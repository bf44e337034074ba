/** @file Learning rates over the course of training. */

export interface Schedule {
  readonly name: "cosine" | "step" | "linear";
  /** The highest rate. */
  readonly peak: number;
  /** How many steps it takes for that; of fewer, the highest rate is less in proportion. Default: 1. */
  readonly fullFrom?: number | undefined;
  /** Share of all steps in which the rate rises from 0 to its peak. */
  readonly warmup: number;
}

/** The highest rate of `steps` in all. */
export function peakOf({ peak, fullFrom = 1 }: Schedule, steps: number): number {
  return peak * Math.min(1, steps / fullFrom);
}

/**
 * The learning rate at `step` of `steps`, counted from 0. After the warm-up: half a cosine to 0
 * (arXiv 1608.03983), a line to 0, or the peak times 0.1 from half and 0.01 from three quarters of
 * all steps on (as HAP tunes).
 */
export function learningRateAt(schedule: Schedule, step: number, steps: number): number {
  const { name, warmup } = schedule;
  const peak = peakOf(schedule, steps);
  const warm = Math.round(warmup * steps);
  if (step < warm) return (peak * (step + 1)) / warm;
  const progress = (step - warm) / Math.max(1, steps - warm);
  switch (name) {
    case "cosine":
      return (peak * (1 + Math.cos(Math.PI * progress))) / 2;
    case "linear":
      return peak * (1 - progress);
    case "step":
      return peak * (progress < 0.5 ? 1 : progress < 0.75 ? 0.1 : 0.01);
  }
}
