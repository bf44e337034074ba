import { expect, test } from "vitest";
import { makePortable } from "./index.ts";
import { conformanceCases, conformanceProblem, interpret } from "./testing/index.ts";

const cases = conformanceCases.filter(({ name }) => name.startsWith("maxPool"));

test.each(cases.map((entry) => [entry.name, entry] as const))(
  "%s: portable operations compute the same",
  (_name, entry) => {
    const { inputs, feeds, outputs } = conformanceProblem(entry);
    // Equal elements, of which the first counts.
    const data = feeds.map((feed) => feed.map((element) => Math.round(element * 2) / 2));
    const given = new Map(inputs.map((value, i) => [value, data[i]]));
    const values = Object.values(outputs);
    const [expected, actual] = [values, makePortable(values)].map((list) => interpret(list, given));
    expect(actual).toEqual(expected);
  },
);
