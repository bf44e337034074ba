/** @file The files that Transformers.js and the Hub read beside a model's weights. */
import type { ImagePreprocessing, Model, ModelConfig, TextInput } from "@espalier/core";

/** The key of a `config.json` for others under which our own configuration is. */
export const OWN_CONFIG = "espalier";

/**
 * The directory, inside one that other software loads as a dense model, that has the pruned model as we
 * load it.
 */
export const COMPACT = "compact";

/** The file beside a model's weights that has the model as a PyTorch module. */
export const PYTORCH = "model.py";

/**
 * `config.json` of an exported model.
 *
 * Models that other software loads as dense ones have configurations of Hugging Face's form (decision
 * 021). Of all others our own configuration stands whole beside what is for others. For images
 * Transformers.js chooses by `model_type` what to do with an ONNX file; `resnet` stands for
 * "`pixel_values` in, `logits` out" and nothing more, whatever is in between (decision 012).
 */
export function transformersConfig({
  classes,
  config,
  preprocessing,
  denseEquivalent,
}: Model): ModelConfig {
  const labels = {
    id2label: Object.fromEntries(classes.map((name, i) => [String(i), name])),
    label2id: Object.fromEntries(classes.map((name, i) => [name, i])),
  };
  if (preprocessing.kind === "text") {
    const named = { ...config, ...(classes.length > 0 ? labels : {}) };
    return denseEquivalent === undefined ? { ...named, [OWN_CONFIG]: config } : named;
  }
  const [channels] = preprocessing.shape;
  return {
    architectures: ["ResNetForImageClassification"],
    model_type: "resnet",
    num_channels: channels,
    ...labels,
    [OWN_CONFIG]: config,
  };
}

export const PREPROCESSOR = "preprocessor_config.json";

/** The content of files that say how inputs are prepared, by their names. */
export function preprocessingFiles({ preprocessing }: Model): Readonly<Record<string, object>> {
  if (preprocessing.kind === "image") return { [PREPROCESSOR]: preprocessorConfig(preprocessing) };
  if (preprocessing.tokenizer === undefined) return {};
  return {
    "tokenizer.json": preprocessing.tokenizer.json,
    "tokenizer_config.json": tokenizerConfig(preprocessing, preprocessing.tokenizer),
  };
}

/**
 * `tokenizer_config.json`, with what older checkpoints leave out: Transformers.js cuts texts by
 * `model_max_length` alone, and fills up with `pad_token`.
 */
function tokenizerConfig(
  { maxLength, padding }: TextInput,
  { json, config }: NonNullable<TextInput["tokenizer"]>,
): object {
  const named = tokenOf(json, padding.token);
  return {
    ...(named === undefined ? {} : { pad_token: named }),
    ...config,
    model_max_length: maxLength,
  };
}

/** The token of a `tokenizer.json` that has the number `id`. */
function tokenOf(json: object, id: number): string | undefined {
  const { added_tokens: added = [], model = {} } = json as {
    added_tokens?: readonly { readonly id: number; readonly content: string }[];
    model?: { vocab?: object };
  };
  const entries = Object.entries(model.vocab ?? {});
  return (
    added.find((token) => token.id === id)?.content ?? entries.find(([, own]) => own === id)?.[0]
  );
}

// Pillow's number of a filter that averages over the area that a pixel covers. Transformers.js takes
// one pixel in many for the bilinear filter (2) when it makes images smaller (decision 012).
const LANCZOS = 1;

/**
 * `preprocessor_config.json`: as `espalier` itself prepares images. An image is scaled so that its
 * shorter side is the model's, divided by the share that the crop leaves; then its middle is cut out.
 */
function preprocessorConfig({ shape, mean, std, crop = 1 }: ImagePreprocessing) {
  const [, height, width] = shape;
  return {
    image_processor_type: "BitImageProcessor",
    do_convert_rgb: true,
    do_resize: true,
    size: { shortest_edge: Math.round(Math.max(height, width) / crop) },
    resample: LANCZOS,
    crop_pct: crop,
    do_center_crop: true,
    crop_size: { height, width },
    do_rescale: true,
    rescale_factor: 1 / 255,
    do_normalize: true,
    image_mean: mean,
    image_std: std,
  };
}
