/** The hits of a search: text with the words of the query, where it stands, and what each stage thought of it. */

import { element, foreign } from "./dom.js";
import { markWords } from "./words.js";

const STAGES = ["dense", "lexical", "rerank"];

/** A list of hits; a hit is opened in `panel`. */
export function hitList(hits, query, panel) {
  const names = [...new Set(hits.flatMap((hit) => Object.keys(hit.scores)))];
  const known = STAGES.filter((name) => names.includes(name));
  const stages = [...known, ...names.filter((name) => !STAGES.includes(name))].map((name) => scaleOf(name, hits));
  return element("ol", { class: "hits" }, ...hits.map((hit) => hitOf(hit, query, stages, panel)));
}

/** How a score of a stage becomes a share of the bar: from nothing, or the lowest if that is below, to the best. */
function scaleOf(name, hits) {
  const values = hits.map((hit) => hit.scores[name]).filter((value) => value !== undefined && value !== null);
  const [lowest, highest] = [Math.min(0, ...values), Math.max(...values)];
  return { name, share: (value) => (highest > lowest ? (value - lowest) / (highest - lowest) : 1) };
}

function hitOf(hit, query, stages, panel) {
  const title = element("button", { type: "button", class: "open" }, foreign(hit.title || hit.source || hit.doc_id));
  title.addEventListener("click", () => panel.open(hit, null, title));
  const words = markWords(hit.text, query).map(({ text, marked }) =>
    marked ? element("mark", { class: "word" }, text) : text,
  );
  const page = hit.page === null || hit.page === undefined ? null : element("span", {}, `p. ${hit.page}`);
  return element(
    "li",
    { class: "hit" },
    element("span", { class: "rank", "aria-hidden": "true" }, hit.rank),
    element(
      "div",
      { class: "about" },
      element("h3", {}, title),
      element("p", { class: "place" }, hit.heading && foreign(hit.heading), page, foreign(hit.source)),
      element("p", { class: "excerpt", lang: "", dir: "auto" }, ...words),
      tags(hit.metadata),
    ),
    element(
      "dl",
      { class: "scores", "aria-label": "Scores" },
      score("score", hit.score),
      ...stages.map((stage) => score(stage.name, hit.scores[stage.name], stage)),
    ),
  );
}

function tags(metadata) {
  const entries = Object.entries(metadata ?? {});
  if (!entries.length) return null;
  const shown = entries.map(([name, value]) =>
    element(
      "li",
      {},
      foreign(name),
      " ",
      foreign(Array.isArray(value) ? value.join(", ") : String(value), { class: "value" }),
    ),
  );
  return element("ul", { class: "tags", "aria-label": "Metadata" }, ...shown);
}

function score(name, value, scale = null) {
  const missing = value === undefined || value === null;
  const bar = element("span", { class: `gauge gauge-${STAGES.indexOf(name)}`, "aria-hidden": "true" });
  if (scale && !missing) {
    const filled = element("span", {});
    filled.style.inlineSize = `${Math.round(100 * scale.share(value))}%`;
    bar.append(filled);
  }
  return element(
    "div",
    { title: scale && "Bars compare the hits of this search" },
    element("dt", {}, name),
    scale && element("dd", {}, bar),
    element("dd", { class: "value" }, missing ? "–" : value.toFixed(3).replace("-", "−")),
  );
}
