/** @file Several trained models of one network made into one. */
import { EspalierError } from "@espalier/base";
import type { Model, Parameter } from "@espalier/core";

/**
 * The model whose parameters are the means of those of `models`, which were trained from each other or
 * from one beginning (Izmailov et al. 2018, arXiv 1803.05407; Wortsman et al. 2022, arXiv 2203.05482).
 * Statistics of normalisation have to be estimated anew.
 *
 * @throws EspalierError `invalid-argument` for no models; `mismatched-model` naming the first parameter
 *   that they do not have in common.
 */
export function averageModels(models: readonly Model[]): Model {
  const [first, ...others] = models;
  if (first === undefined) {
    throw new EspalierError("invalid-argument", "expected at least one model, got none");
  }
  const parameters = new Map<string, Parameter>();
  for (const [name, parameter] of first.parameters) {
    const sum = Float64Array.from(parameter.data);
    for (const [i, { parameters: theirs }] of others.entries()) {
      const shape = theirs.get(name)?.shape.join();
      if (shape !== parameter.shape.join()) {
        throw new EspalierError(
          "mismatched-model",
          `model ${i + 2}: ${name}: expected shape [${parameter.shape}] as in the first model, got ${shape === undefined ? "no such parameter" : `[${shape}]`}`,
          { parameter: name },
        );
      }
      theirs.get(name)!.data.forEach((value, k) => {
        sum[k] += value;
      });
    }
    parameters.set(name, {
      ...parameter,
      data: Float32Array.from(sum, (value) => value / models.length),
    });
  }
  for (const [i, { parameters: theirs }] of others.entries()) {
    const left = [...theirs.keys()].find((name) => !parameters.has(name));
    if (left === undefined) continue;
    throw new EspalierError(
      "mismatched-model",
      `model ${i + 2}: ${left}: the first model has no such parameter`,
      { parameter: left },
    );
  }
  return first.withParameters(parameters);
}
