/** @file The registry of all operations. */
import type { Operation } from "../value.ts";
import { contractOperations } from "./contract.ts";
import { convolutionOperations } from "./convolution.ts";
import { elementwiseOperations } from "./elementwise.ts";
import { constantOperation, inputOperation } from "./leaf.ts";
import { normalizeOperations } from "./normalize.ts";
import { poolOperations } from "./pool.ts";
import {
  broadcastOperation,
  concatOperation,
  gatherOperation,
  padOperation,
  positionsOperation,
  reshapeOperation,
  scatterAddOperation,
  sliceOperation,
  sumOperation,
  transposeOperation,
} from "./shape.ts";

/** Every operation by its name. */
export const operations: ReadonlyMap<string, Operation> = new Map(
  [
    inputOperation,
    constantOperation,
    reshapeOperation,
    broadcastOperation,
    sumOperation,
    transposeOperation,
    sliceOperation,
    padOperation,
    concatOperation,
    gatherOperation,
    scatterAddOperation,
    positionsOperation,
    ...elementwiseOperations,
    ...normalizeOperations,
    ...contractOperations,
    ...convolutionOperations,
    ...poolOperations,
  ].map((operation) => [operation.name, operation as Operation]),
);
