export { interpret } from "../interpret.ts";
export {
  type ConformanceCase,
  type ConformanceProblem,
  conformanceCases,
  conformanceProblem,
} from "./cases.ts";
export { randomArray, uniform } from "./random.ts";
export { createReferenceExecutor } from "./reference-executor.ts";
