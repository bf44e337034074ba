/** @file The sections of the page. */
import { budgetSlider, budgetTable } from "./budgets.ts";
import { compare } from "./comparison.ts";
import { criteriaOf } from "./criteria.ts";
import {
  describeCounts,
  describeEpochs,
  describeRanks,
  describeSpeedup,
  epochsOf,
  explainEstimator,
  explainImplants,
  explainMetric,
  explainNegative,
  explainPlan,
  explainStability,
  spellOut,
  unitsOf,
} from "./explain.ts";
import { decisionBar, latencyFigure, trainingFigure, widthsFigure } from "./figures.ts";
import { formatCount, formatNumber, formatPercent } from "./format.ts";
import { headsFigure } from "./heads-figure.ts";
import { type Content, type Html, html } from "./html.ts";
import { flattenSettings, onnxExample, quoteWord, sampleName, taskOf } from "./instructions.ts";
import type { EpochRecord } from "./read-run.ts";
import { breakable, scorePanels } from "./score-panels.ts";
import type { GroupSummary, Summary } from "./summary.ts";
import { table } from "./table.ts";

/** A file of the run that the page links to. */
export interface RunFile {
  /** Relative to the run directory. */
  readonly path: string;
  readonly content: string;
}

/** A part of the page with a heading. */
export interface Section {
  readonly id: string;
  readonly title: string;
  readonly body: Content;
}

/** The sections that a run of its kind has, one after another. */
export function sectionsOf(summary: Summary, files: readonly RunFile[]): Section[] {
  const { command } = summary.manifest;
  const sections: Section[] = [];
  if (command === "prune") sections.push({ id: "result", title: "Result", body: result(summary) });
  if (command !== "train") {
    sections.push({ id: "sensitivity", title: "Sensitivity", body: sensitivity(summary) });
  }
  if (command === "prune") {
    sections.push({ id: "decisions", title: "What was removed", body: decisions(summary) });
  }
  if (command !== "sensitivity") {
    const title = command === "train" ? "Training" : "Tuning";
    sections.push({ id: "training", title, body: training(summary) });
  }
  if (command === "prune") sections.push({ id: "speed", title: "Speed", body: speed(summary) });
  sections.push({ id: "reproduce", title: "How to reproduce", body: reproduce(summary) });
  sections.push({ id: "use", title: "How to use the result", body: use(summary, files) });
  return sections;
}

function missing(file: string, meaning: string): Html {
  return html`<p class="missing"><code>${file}</code> is not there (yet): ${meaning}.</p>`;
}

function result(summary: Summary): Content {
  const { evaluation, sizes, latency, manifest } = summary;
  const epochs = epochsOf(summary);
  const rows = compare(summary);
  const models = epochs > 0 ? ["dense", "pruned", "tuned"] : ["dense", "pruned"];
  const head =
    epochs > 0
      ? html`<tr><td rowspan="2"></td><th scope="col" rowspan="2">dense</th><th class="spanning" scope="colgroup" colspan="2">pruned</th></tr><tr><th scope="col">before tuning</th><th scope="col">tuned for ${describeEpochs(epochs)}</th></tr>`
      : html`<tr><td></td><th scope="col">dense</th><th scope="col">pruned</th></tr>`;
  const body = rows.map(
    ({ name, key, cells }) =>
      html`<tr data-row="${key}"><th scope="row">${name}</th>${cells.map((cell, i) => {
        const spanning = cells.length < models.length && i === cells.length - 1;
        const { value, text, change, note } = cell;
        return html`<td data-model="${spanning ? "tuned" : models[i]}" data-value="${value}"${spanning && html` class="spanning" colspan="2"`}>${text}${note && html`<small>${note}</small>`}${change && html`<small class="change">${change}</small>`}</td>`;
      })}</tr>`,
  );
  const { accuracy, loss } = criteriaOf(summary);
  const errors = evaluation && Object.values(evaluation).map(({ standardError }) => standardError);
  return [
    rows.length > 0 &&
      html`<div class="scroll" tabindex="0" role="region" aria-label="Table of results"><table class="result"><thead>${head}</thead><tbody>${body}</tbody></table></div>`,
    evaluation !== undefined &&
      html`<p class="caption">Small print compares with the dense model. ${accuracy.name} and ${loss.plainName} are those of all ${formatCount(evaluation.dense.count)} test samples of ${manifest.data}, which were used for nothing else; with so many, one standard error is up to ${accuracy.describeError(Math.max(...(errors ?? []))).replace("± ", "")}.${pruningNote(summary)}${latency && " Times are first quartiles, with medians in small print."}</p>`,
    evaluation === undefined && missing("evaluation.json", "the models have not been judged"),
    sizes === undefined && missing("sizes.json", "the models have not been exported"),
  ];
}

/** What "straight after pruning" means. */
function pruningNote({ manifest, counts }: Summary): string {
  if (manifest.command !== "prune" || manifest.calibration === 0) return "";
  const samples = formatCount(manifest.calibration);
  const settings = flattenSettings(manifest.settings);
  const implants = (counts?.implant ?? 0) > 0 && settings.get("implantStart") === "least-squares";
  const layers = settings.get("compensation") === "least-squares";
  const fitted = [...(layers ? ["layers"] : []), ...(implants ? ["implants"] : [])].join(" and ");
  const implantsAsTheyAre = (counts?.implant ?? 0) > 0 && !implants;
  const done = [
    ...(fitted === "" ? [] : [`${fitted} fitted by least squares`]),
    // As `applyPlan` has it (decision 016).
    ...(layers && !implantsAsTheyAre
      ? []
      : ["the statistics of its normalisation layers estimated anew"]),
  ];
  return ` The pruned model has had ${done.join(" and ")} on ${samples} training samples, but no step of training.`;
}

function sensitivity({ sensitivity, groups, counts, manifest }: Summary): Content {
  const several = manifest.command === "prune" && manifest.rounds > 1;
  if (sensitivity === undefined) {
    return manifest.command === "prune" && manifest.planGiven
      ? html`<p class="missing">The run followed a given plan, so nothing was scored.</p>`
      : missing(
          several ? "rounds/1/sensitivity.json" : "sensitivity.json",
          "no component has been scored",
        );
  }
  const coupled = groups.some(({ layers }) => layers.length > 1);
  const one = (decision: "keep" | "implant" | "prune", name: string) =>
    counts !== undefined &&
    counts[decision] > 0 &&
    html`<li><svg viewBox="0 0 14 14" aria-hidden="true"><path class="dots ${decision}" d="M7 7h0"/>${decision === "prune" && html`<path class="hollow" d="M7 7h0"/>`}</svg>${formatCount(counts[decision])} ${name}</li>`;
  const kinds = [...new Set(groups.map(({ kind }) => kind))];
  const heads = headsFigure(groups, sensitivity.metric);
  return [
    html`<p>A component is the smallest part that can be removed: here, ${kinds.map((kind) => kindNames[kind]).join(" or ")}. ${
      !kinds.includes("channel")
        ? ""
        : sensitivity.coupling === "together"
          ? "Channels of layers whose outputs are added can only go together, and count as one."
          : "Each layer's channels are scored on their own, also where the outputs of layers are added."
    } ${explainMetric(sensitivity)}</p>`,
    html`<p>${explainEstimator(sensitivity)} ${explainStability(sensitivity)} ${explainNegative(sensitivity)}</p>`,
    heads &&
      html`<h3>Attention heads${several && ", before the first round"}</h3>${heads}<p class="caption">How to read it: a row is a layer and a cell one of its heads, by its number. The stronger the colour, the higher the score, among all heads. Blue is kept, grey with a line through it removed, and orange in a frame works on at a lower rank, the number in it. Pointing at a cell shows its score with its standard error.</p>`,
    html`<h3>Scores in each group${several && ", before the first round"}</h3>`,
    counts &&
      html`<ul class="key">${one("keep", "kept")}${one("implant", "replaced by implants")}${one("prune", "removed")}</ul>`,
    scorePanels(groups, sensitivity.metric),
    html`<p class="caption">How to read it: each chart is a group and each mark one of its components, from the least sensitive on the left to the most sensitive on the right. Height is the score${sensitivity.metric === "random" ? "" : ", on a logarithmic scale"}, the same in all charts; a thin line spans one standard error up and down. Scores far below all others are put at the lower edge.${counts && " The number on the right is how many components stay."}${several && " Later rounds went by scores measured anew, so what was removed need not be what is lowest here."}${coupled && " “+ 3” stands for three more layers whose components go together with those of the layer named."}</p>`,
    html`<details><summary>Scores of each group as a table</summary>${scoreTable(groups)}</details>`,
  ];
}

const kindNames: Readonly<Record<GroupSummary["kind"], string>> = {
  channel: "a channel",
  head: "an attention head",
  neuron: "a neuron",
};

function scoreTable(groups: readonly GroupSummary[]): Html {
  const rows = groups.map(({ name, components, scores = [], standardErrors = [] }) => {
    const sorted = [...scores].sort((a, b) => a - b);
    const relative = scores
      .flatMap((score, i) => (score === 0 ? [] : (standardErrors[i] ?? 0) / Math.abs(score)))
      .sort((a, b) => a - b);
    const middle = relative[Math.floor(relative.length / 2)] ?? 0;
    const values = [sorted[0], sorted[Math.floor(components / 2)], sorted[components - 1]];
    return html`<tr><th scope="row">${name}</th><td data-value="${components}">${components}</td>${values.map((value) => html`<td data-value="${value}">${formatNumber(value)}</td>`)}<td data-value="${middle}">${formatPercent(middle, 1)}</td></tr>`;
  });
  return table(
    ["group", "components", "lowest", "median", "highest", "typical error"],
    rows,
    "Scores",
  );
}

function decisions(summary: Summary): Content {
  const { groups, counts, rounds, widths, budgets, manifest } = summary;
  if (manifest.command !== "prune") return undefined;
  const decided = groups.flatMap(({ name, layers, counts }) =>
    counts === undefined ? [] : { name, layers, counts },
  );
  const rows = decided.map(({ name, counts, layers }, i) => {
    const { keep, implant, prune } = counts;
    const whole = keep + implant + prune;
    const others = layers.length > 1 && html` <span class="quiet">+ ${layers.length - 1}</span>`;
    return html`<tr data-group="${name}"><th scope="row" title="${layers.join(", ")}">${breakable(name)}${others}</th><td class="bar">${decisionBar(name, counts, i)}</td>${Object.entries({ keep, implant, prune }).map(([decision, count]) => html`<td data-value="${count}" data-count="${decision}">${count}</td>`)}<td class="roomy" data-value="${(keep + implant) / whole}" data-count="left">${whole} → ${keep + implant}</td></tr>`;
  });
  const changed = widths.filter(({ before, after, implants }) => before !== after || implants > 0);
  const ranked = widths.some(({ ranks }) => ranks.length > 0);
  const planned = rounds.length === manifest.rounds;
  const plan = manifest.rounds === 1 ? "plan.json" : `rounds/${rounds.length + 1}/plan.json`;
  return [
    counts &&
      html`<p>Of ${formatCount(counts.keep + counts.implant + counts.prune)} components, <b>${describeCounts(counts)}</b>. ${counts.implant > 0 && `${explainImplants(widths)} `}${summary.plan && explainPlan(summary.plan)}</p>`,
    !planned && missing(plan, `${rounds.length} of ${manifest.rounds} plans have been made`),
    decided.length > 0 &&
      html`<h3>Decisions in each group${budgets.length > 0 && ", under this and other budgets"}</h3><div class="budgets">${budgetSlider(summary)}<div class="marks">${table(["group", "", "kept", "implants", "removed", html`<span class="roomy">before → after</span>`], rows, "Decisions")}</div></div><p class="caption">How to read it: a strip is all components of a group, the least sensitive on the left. Tall and blue are kept, half as tall and orange replaced by implants, low and grey removed.<span class="scripted" hidden> The stronger the colour, the higher the score, on the scale of the charts above.${budgets.length > 0 && " Moving the slider shows the plan that another budget would have led to, from the same scores; sizes are counted on the network rebuilt for it."}</span>${rounds.length > 1 && " Other budgets are not shown, since scores of later rounds depend on what earlier ones removed."}</p>${budgetTable(summary)}`,
    rounds.length > 1 && html`<h3>Round by round</h3>${roundTable(summary)}`,
    changed.length > 0 &&
      html`<h3>Width of each layer in this run</h3>${widthsFigure(widths)}<p class="caption">How to read it: each column is a layer, in the order of their names; its height is the number of its ${unitsOf(widths)}. Blue is kept, orange are implants, and grey is what was removed.</p><details><summary>Widths as a table</summary>${table(
        ["layer", "before", "after", "implants", ...(ranked ? ["rank"] : [])],
        widths.map(
          ({ layer, before, after, implants, ranks }) =>
            html`<tr><th scope="row">${layer}</th>${[before, after, implants].map((width) => html`<td data-value="${width}">${width}</td>`)}${ranked && html`<td data-value="${ranks[0] ?? 0}">${describeRanks(ranks)}</td>`}</tr>`,
        ),
        "Widths",
      )}</details>`,
  ];
}

function roundTable({ rounds }: Summary): Html {
  const rows = rounds.map(
    ({ components, implants, parameters, macs, rankStability }, i) =>
      html`<tr><th scope="row">${i + 1}</th>${[components, implants, parameters, macs].map((count) => html`<td data-value="${count}">${formatCount(count)}</td>`)}<td data-value="${rankStability}">${rankStability?.toFixed(3) ?? "–"}</td></tr>`,
  );
  return html`${table(["after round", "components", "of them implants", "parameters", "multiply-accumulates", "rank stability"], rows, "Rounds")}<p class="caption">Scores were measured anew before each round, on what the one before had left.</p>`;
}

function training(summary: Summary): Content {
  const { denseTraining, training, manifest } = summary;
  const tuning =
    manifest.command === "prune" && manifest.epochs === 0
      ? html`<p class="missing">The run was not to be tuned (0 epochs).</p>`
      : training === undefined
        ? missing("training.json", "the last epoch has not been reached")
        : course("curve", training, summary);
  if (denseTraining === undefined) return tuning;
  return [
    html`<h3>Of the dense model, before it was pruned</h3>`,
    course("dense-curve", denseTraining, summary),
    html`<h3>Of the pruned model</h3>`,
    tuning,
  ];
}

function course(id: string, training: readonly EpochRecord[], summary: Summary): Content {
  if (training.length === 0) return html`<p class="missing">No epoch was trained.</p>`;
  const held = training.some(({ validationAccuracy }) => validationAccuracy !== undefined);
  const criteria = criteriaOf(summary);
  const { accuracy } = criteria;
  const criterion = accuracy.plainName;
  const images = taskOf(summary.model) === "image-classification";
  const rows = training.map(
    ({ epoch, loss, trainAccuracy, validationAccuracy, learningRate }) =>
      html`<tr><th scope="row">${epoch}</th><td data-value="${loss}">${loss.toFixed(4)}</td><td data-value="${trainAccuracy}">${accuracy.format(trainAccuracy)}</td>${held && html`<td data-value="${validationAccuracy}">${validationAccuracy === undefined ? "–" : accuracy.format(validationAccuracy)}</td>`}<td data-value="${learningRate}">${formatNumber(learningRate)}</td></tr>`,
  );
  return [
    trainingFigure(id, training, criteria),
    html`<p class="caption">How to read it: one point for each epoch. Loss and training ${criterion} are means over the steps of the epoch${images && ", on augmented samples"}${held && `; the dashed line is the ${criterion} on training samples that were held out`}. The learning rate is that of the epoch's last step. The model of the last epoch is the result: none was picked by its ${criterion}.</p>`,
    html`<details><summary>Epochs as a table</summary>${table(["epoch", "loss", "training", ...(held ? ["held out"] : []), "learning rate"], rows, "Epochs")}</details>`,
  ];
}

function speed(summary: Summary): Content {
  const { latency } = summary;
  if (latency === undefined) return missing("latency.json", "nothing has been timed");
  const sample = sampleName(summary.model);
  const after = epochsOf(summary) > 0 ? "tuned" : "pruned";
  return [
    html`<p>${latency.batches.map((times) => html`With ${times.batch === 1 ? `1 ${sample}` : `${formatCount(times.batch)} ${sample}s`} at a time, the pruned model is <b>${describeSpeedup(times)}</b>. `)}</p>`,
    latencyFigure(latency.batches, after, sample),
    html`<p class="caption">How to read it: a bar is the time for one batch on ${latency.executor} (${latency.machine.runtime}, ${latency.machine.processor}, ${latency.machine.threads} threads), that a quarter of all runs stayed below, and the line with ends reaches from there to what three quarters stayed below. Speed-ups and budgets of latency compare these first quartiles, since other programs only ever make a run slower. Both models ran in turn, so that both met the same conditions. Time need not follow multiply-accumulates: every layer has a cost of its own, and processors like widths that are multiples of 8 or 16 (<code>--round-to</code>).</p>`,
  ];
}

function reproduce({ manifest, command, run }: Summary): Content {
  const general: [string, Content][] =
    manifest.sha256 === undefined
      ? [["network", manifest.source]]
      : [
          ["source", manifest.source],
          ["SHA-256", html`<code>${manifest.sha256}</code>`],
        ];
  general.push(["data", manifest.data], ["executor", manifest.executor]);
  if ("seed" in manifest) general.push(["seed", manifest.seed]);
  if ("holdOut" in manifest && manifest.holdOut !== undefined) {
    general.push(["held out", manifest.holdOut]);
  }
  if ("batchSize" in manifest) general.push(["batch size", manifest.batchSize]);
  const groups = new Map<string, [string, Content][]>([["run", general]]);
  for (const [path, value] of flattenSettings(manifest.settings)) {
    const parts = path.split(".");
    const [group, names] = parts.length > 1 ? [parts[0], parts.slice(1)] : ["run", parts];
    const list = groups.get(group) ?? [];
    groups.set(group, list);
    const text = typeof value === "string" ? value : JSON.stringify(value);
    list.push([names.map(spellOut).join(" "), text]);
  }
  return [
    command === undefined
      ? html`<p>The run had settings that the command has no options for; <code>run.json</code> has them all for the library.</p>`
      : html`<p>The same command with the same source and data gives the same result, but for measured times.</p><pre class="wrap" tabindex="0"><code>${unbrokenOptions(command)}</code></pre>`,
    html`<div class="facts">${[...groups].map(
      ([name, list]) =>
        html`<div><h3 class="small">${spellOut(name)}</h3><dl>${list.map(([key, value]) => html`<dt>${key}</dt><dd>${value}</dd>`)}</dl></div>`,
    )}</div>`,
    html`<p class="caption">All randomness derives from the seed. Settings are those of <a href="run.json">run.json</a> in <code>${run}</code>.</p>`,
  ];
}

/** A command whose options are not broken at their dashes. */
function unbrokenOptions(command: string): Html {
  return html`${command.split(/(?= )/).map((word) => (word.startsWith(" -") ? html` <span class="option">${word.slice(1)}</span>` : word))}`;
}

function use(summary: Summary, files: readonly RunFile[]): Content {
  const { manifest, model } = summary;
  const name = quoteWord(summary.run);
  const finished = files.some(({ path }) => path.startsWith("model/"));
  const exported = files.some(({ path }) => path === "export/pruned/onnx/model.onnx");
  const classes = model !== undefined && model.classes.length > 0 && model.classes.length <= 100;
  return [
    finished &&
      html`<p>Espalier takes the run directory wherever it takes a model:</p><pre tabindex="0"><code>espalier evaluate ${name} --data ${quoteWord(manifest.data)}\nespalier export ${name} --to my-model</code></pre>`,
    exported &&
      html`<p>The ONNX file runs wherever ONNX Runtime does, without Espalier:</p><pre tabindex="0"><code>${onnxExample(summary)}</code></pre>${classes && html`<details><summary>The ${model.classes.length} classes, in the order of the logits</summary><p>${model.classes.join(", ")}</p></details>`}`,
    manifest.command === "sensitivity" &&
      html`<p>A run of <code>espalier prune</code> measures the same scores as its first stage.</p>`,
    html`<h3>Files of the run</h3><ul>${files.map(({ path, content }) => html`<li><a href="${path}">${path}</a>: ${content}</li>`)}</ul>`,
  ];
}
