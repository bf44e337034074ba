export { explainOutcome } from "./explain.ts";
export { formatBytes } from "./format.ts";
export { type Report, renderReport, writeExportCard } from "./render-report.ts";
export type { Summary } from "./summary.ts";
