/** @file The files that Transformers.js and the Hub read beside a model's weights. */
import type { ImagePreprocessing, Model, ModelConfig } from "@espalier/core";

/** The key of a `config.json` for others under which our own configuration is. */
export const OWN_CONFIG = "espalier";

/**
 * `config.json` of an exported model, with our own configuration whole beside what is for others.
 *
 * Texts have configurations of Hugging Face's form already. For images Transformers.js chooses by
 * `model_type` what to do with an ONNX file; `resnet` stands for "`pixel_values` in, `logits` out" and
 * nothing more, whatever is in between (decision 012).
 */
export function transformersConfig({ classes, config, preprocessing }: Model): ModelConfig {
  const labels = {
    id2label: Object.fromEntries(classes.map((name, i) => [String(i), name])),
    label2id: Object.fromEntries(classes.map((name, i) => [name, i])),
  };
  if (preprocessing.kind === "text") {
    return { ...config, ...(classes.length > 0 ? labels : {}), [OWN_CONFIG]: config };
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

/**
 * The content of files that say how inputs are prepared, by their names: those that do not go with
 * `model` already.
 */
export function preprocessingFiles({
  preprocessing,
  files,
}: Model): Readonly<Record<string, object>> {
  if (preprocessing.kind === "image") return { [PREPROCESSOR]: preprocessorConfig(preprocessing) };
  const { json, config } = preprocessing.tokenizer ?? {};
  // Older checkpoints have a vocabulary alone; Transformers.js wants both of these.
  const wanted = { "tokenizer.json": json, "tokenizer_config.json": config };
  return Object.fromEntries(
    Object.entries(wanted).flatMap(([name, content]) =>
      content === undefined || files?.has(name) ? [] : [[name, content]],
    ),
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
