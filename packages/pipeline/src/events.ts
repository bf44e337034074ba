/** @file What a pipeline says of its progress. */
import type { EpochRecord } from "@espalier/train";

export type Stage =
  | "tune dense"
  | "sensitivity"
  | "plan"
  | "apply"
  | "tune"
  | "evaluate"
  | "export"
  | "latency"
  | "report";

export type PipelineEvent =
  | { readonly type: "stage-start"; readonly stage: Stage; readonly subject?: string }
  /** `reused`: the stage had been done before, and its files were read. */
  | { readonly type: "stage-end"; readonly stage: Stage; readonly reused: boolean }
  | {
      readonly type: "progress";
      readonly stage: Stage;
      /** What is counted, in the plural. */
      readonly unit: "passes" | "samples" | "steps";
      readonly done: number;
      readonly total: number;
      readonly subject?: string;
    }
  | { readonly type: "epoch-end"; readonly epochs: number; readonly record: EpochRecord };

export type OnPipelineEvent = ((event: PipelineEvent) => void) | undefined;
