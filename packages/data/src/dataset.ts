/** @file What every data set looks like once it is open, whatever its samples are. */
import { EspalierError } from "@espalier/base";
import type { Measure, Objective, Preprocessing, Samples } from "@espalier/core";
import type { ImageDataset } from "./image-dataset.ts";

export interface Dataset {
  readonly name: string;
  /** Label names; a label is a position in this list. Of regression: what is predicted. */
  readonly classes: readonly string[];
  readonly objective: Objective["name"];
  /** What models are judged by on it, besides accuracy and loss. */
  readonly measures: readonly Measure[];
  /** Whether every file has the checksum of the published data set. */
  readonly verified: boolean;
  /** How many samples there are. */
  readonly counts: { readonly train: number; readonly test: number };
  /**
   * SHA-256, hexadecimal, of the samples and their labels, which tells data apart that were opened by the
   * same name. Of images in folders: of their names, sizes in bytes and classes instead of their contents.
   */
  digest(): Promise<string>;
  /**
   * The training samples as a model with this preprocessing takes them.
   *
   * @throws EspalierError `mismatched-model` if the samples cannot be made what the model takes.
   */
  train(preprocessing: Preprocessing): Samples;
  /** The samples to judge a model on; as `train`. */
  test(preprocessing: Preprocessing): Samples;
}

/** The preprocessing of a model that takes samples of that kind. @throws EspalierError `mismatched-model`. */
export function expectKind<Kind extends Preprocessing["kind"]>(
  kind: Kind,
  name: string,
  preprocessing: Preprocessing,
): Extract<Preprocessing, { kind: Kind }> {
  if (preprocessing.kind === kind) return preprocessing as Extract<Preprocessing, { kind: Kind }>;
  throw new EspalierError(
    "mismatched-model",
    `${name}: expected a model of ${kind}s, got one of ${preprocessing.kind}s`,
    { expected: kind, actual: preprocessing.kind },
  );
}

/** A data set of images among others. */
export function ofImages(dataset: ImageDataset): Dataset {
  const images = (preprocessing: Preprocessing) => expectKind("image", dataset.name, preprocessing);
  return {
    ...dataset,
    objective: "classification",
    measures: [],
    train: (preprocessing) => dataset.train(images(preprocessing)),
    test: (preprocessing) => dataset.test(images(preprocessing)),
  };
}
