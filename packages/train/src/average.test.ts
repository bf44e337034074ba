import { tinyResNet } from "@espalier/vision/testing";
import { expect, test } from "vitest";
import { averageModels } from "./average.ts";

test("parameters are the means of all", () => {
  const models = [1, 2, 3].map((seed) => tinyResNet({ seed }));
  const mean = averageModels(models);
  expect([...mean.parameters.keys()]).toEqual([...models[0].parameters.keys()]);
  for (const [name, { data }] of mean.parameters) {
    data.forEach((value, i) => {
      const values = models.map((model) => model.parameters.get(name)!.data[i]);
      expect(value).toBeCloseTo((values[0] + values[1] + values[2]) / 3, 6);
    });
  }
});

test("of one model it is the model", () => {
  const model = tinyResNet();
  for (const [name, { data }] of averageModels([model]).parameters) {
    expect(data).toEqual(model.parameters.get(name)!.data);
  }
});

test("models of different networks have no mean", () => {
  const model = tinyResNet();
  expect(() => averageModels([model, tinyResNet({ widths: [4, 6, 10] })])).toThrow(
    /^model 2: layer3\.0\.conv1\.weight: expected shape \[8,6,3,3\] as in the first model, got \[10,6,3,3\]$/,
  );
  expect(() => averageModels([model, tinyResNet({ depth: 14 })])).toThrow(
    /^model 2: layer1\.1\.conv1\.weight: the first model has no such parameter$/,
  );
  expect(() => averageModels([tinyResNet({ depth: 14 }), model])).toThrow(
    /^model 2: layer1\.1\.conv1\.weight: .*got no such parameter$/,
  );
  expect(() => averageModels([])).toThrow("expected at least one model, got none");
});
