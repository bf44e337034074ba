export { interpret } from "../interpret.ts";
export {
  type ConformanceCase,
  type ConformanceProblem,
  conformanceCases,
  conformanceProblem,
  type DiscreteCase,
  discreteCases,
} from "./cases.ts";
export {
  type ConformanceCheck,
  conformanceChecks,
  type Deviation,
  deviationOf,
  expectConformance,
} from "./conformance.ts";
export { randomArray, uniform } from "./random.ts";
export { createReferenceExecutor } from "./reference-executor.ts";
