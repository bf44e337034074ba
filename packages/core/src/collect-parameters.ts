/** @file The parameters of a model from the tensors of a checkpoint, which may come from anywhere. */
import { EspalierError } from "@espalier/base";
import type { Shape } from "@espalier/graph";
import type { Parameter, ParameterSpec, Parameters } from "./model.ts";

/** A tensor of a checkpoint and what it is called there. */
export interface NamedTensor {
  readonly name: string;
  readonly tensor: { readonly shape: Shape; readonly data: Float32Array };
}

/**
 * The tensors of a checkpoint as parameters, each exactly as declared.
 *
 * @param path Of the checkpoint, for messages.
 * @param tensors By the names that they have in our models.
 * @throws EspalierError `mismatched-model` naming a tensor that is missing, left over or of the wrong
 *   shape; `not-finite` naming one with NaN or infinity.
 */
export function collectParameters(
  path: string,
  tensors: ReadonlyMap<string, NamedTensor>,
  declarations: ReadonlyMap<string, ParameterSpec>,
): Parameters {
  for (const [canonical, { name }] of tensors) {
    if (declarations.has(canonical)) continue;
    throw new EspalierError(
      "mismatched-model",
      `${path}: tensor ${name} has no place in the model`,
      {
        path,
        tensor: name,
      },
    );
  }
  const parameters = new Map<string, Parameter>();
  for (const [canonical, { shape, kind }] of declarations) {
    const found = tensors.get(canonical);
    if (found === undefined) {
      throw new EspalierError(
        "mismatched-model",
        `${path}: tensor ${canonical} is missing, expected shape [${shape}]`,
        { path, tensor: canonical, expected: shape },
      );
    }
    const { name, tensor } = found;
    if (tensor.shape.join() !== shape.join()) {
      throw new EspalierError(
        "mismatched-model",
        `${path}: tensor ${name}: expected shape [${shape}], got [${tensor.shape}]`,
        { path, tensor: name, expected: shape, actual: tensor.shape },
      );
    }
    const wrong = tensor.data.findIndex((element) => !Number.isFinite(element));
    if (wrong >= 0) {
      throw new EspalierError(
        "not-finite",
        `${path}: tensor ${name}: expected finite numbers, got ${tensor.data[wrong]} at ${wrong}`,
        { path, tensor: name, index: wrong },
      );
    }
    parameters.set(canonical, { shape, kind, data: tensor.data });
  }
  return parameters;
}
