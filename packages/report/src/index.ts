export { describeEpochs, explainOutcome } from "./explain.ts";
export { formatBytes } from "./format.ts";
export {
  type LinePlotOptions,
  linePlot,
  type PlotAxis,
  type PlotPoint,
  type PlotSeries,
} from "./line-plot.ts";
export {
  type PlotOfPage,
  type PlotPageOptions,
  type PlotSection,
  plotPage,
} from "./plot-page.ts";
export { type Report, renderReport, writeExportCard } from "./render-report.ts";
export type { Summary } from "./summary.ts";
