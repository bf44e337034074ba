/** @file Configurations of models, which may come from anywhere. */
import { EspalierError } from "@espalier/base";
import type * as z from "zod";
import type { ModelConfig } from "./model.ts";

/**
 * `config` as `schema` reads it.
 *
 * @param path Of the checkpoint, for messages.
 * @throws EspalierError `mismatched-model` naming the field of a `config.json` that is wrong.
 */
export function checkConfig<Config>(
  schema: z.ZodType<Config>,
  config: ModelConfig,
  path: string,
): Config {
  const { success, data, error } = schema.safeParse(config, { reportInput: true });
  if (success) return data;
  const [{ path: keys, message, input }] = error.issues;
  const field = keys.join(".");
  // Some of zod's messages say what came, others do not.
  const got = message.includes("received") ? "" : `, got ${JSON.stringify(input)?.slice(0, 80)}`;
  throw new EspalierError("mismatched-model", `${path}: config.${field}: ${message}${got}`, {
    path,
    field,
  });
}
