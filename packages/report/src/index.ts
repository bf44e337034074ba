export { explainOutcome } from "./explain.ts";
export { formatBytes } from "./format.ts";
export { type LinePlotOptions, linePlot, type PlotAxis, type PlotSeries } from "./line-plot.ts";
export { type Report, renderReport, writeExportCard } from "./render-report.ts";
export type { Summary } from "./summary.ts";
