/** @file What a pipeline says of its progress. */
import type { EspalierError } from "@espalier/base";
import type { Objective } from "@espalier/core";
import type { DatasetEvent } from "@espalier/data";
import type { EpochRecord } from "@espalier/train";

export type Stage =
  | "tune dense"
  | "latency-table"
  | "sensitivity"
  | "plan"
  | "apply"
  | "tune"
  | "evaluate"
  | "export"
  | "latency"
  | "report";

export interface ClassesEvent {
  readonly type: "classes-by-position";
  readonly data: string;
  /** The first class of each. */
  readonly first: { readonly data: string; readonly model: string };
}

export type PipelineEvent =
  /** A model is fetched from the Hub. */
  | DatasetEvent
  | { readonly type: "stage-start"; readonly stage: Stage; readonly subject?: string }
  /** `reused`: the stage had been done before, and its files were read. */
  | { readonly type: "stage-end"; readonly stage: Stage; readonly reused: boolean }
  | {
      readonly type: "progress";
      readonly stage: Stage;
      /** What is counted, in the plural. */
      readonly unit: "passes" | "samples" | "steps" | "files" | "layers";
      readonly done: number;
      readonly total: number;
      readonly subject?: string;
    }
  | {
      /** The times of layers are known. `cached`: from a run before. */
      readonly type: "latency-table";
      readonly cached: boolean;
      /** What widths pay in multiples of. */
      readonly multiple: number;
      /** By how much readings of one time differ, as a share. */
      readonly noise: number;
    }
  /** The data's classes are taken for the model's in order, since none of them is called the same. */
  | ClassesEvent
  /** What was measured is not kept for other runs. */
  | { readonly type: "cache-fail"; readonly error: EspalierError }
  | {
      /** A planned model was timed beside the dense one; shares of the dense model's time. */
      readonly type: "latency-check";
      /** What was asked for, and what was planned for. */
      readonly keep: number;
      readonly target: number;
      readonly predicted: number;
      readonly measured: number;
      readonly accepted: boolean;
    }
  | {
      readonly type: "epoch-end";
      readonly epochs: number;
      readonly record: EpochRecord;
      /** Of regression the record's accuracies are correlations. */
      readonly objective: Objective["name"];
    };

export type OnPipelineEvent = ((event: PipelineEvent) => void) | undefined;
