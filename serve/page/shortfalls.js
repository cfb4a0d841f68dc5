/** What a reply lacks, said in words where it is shown: no answer, a part of the index, a stage left out. */

import { element } from "./dom.js";
import { percent } from "./text.js";

const RERANK_LEFT_OUT = "Reranking was left out: the passages are in the order of retrieval.";

/** The notices of an answer; `cited` says whether it has citations. */
export function shortfallsOfAnswer({ grounded, cited, finish, coverage, degraded }) {
  return [
    grounded === false && !cited && notice("Not answered", "Nothing in the documents supports an answer well enough."),
    grounded === false && cited && notice("Not verified", "Some of this cannot be traced to the passages it cites."),
    finish === "length" && notice("Cut short", "The answer reached its limit of length."),
    ...leftOut(coverage, degraded, "The answer may lack what the rest holds."),
  ].filter(Boolean);
}

/** The notices of a search. */
export function shortfallsOfSearch({ coverage, degraded }) {
  return leftOut(coverage, degraded, "Hits in the rest are not listed.");
}

function leftOut(coverage, degraded, effect) {
  const stages = (degraded ?? []).filter((name) => name !== "partition");
  return [
    ...(coverage?.degraded ? [notice("Incomplete", `${partial(coverage)} ${effect}`)] : []),
    ...stages.map((name) => notice("Degraded", name === "rerank" ? RERANK_LEFT_OUT : `Left out: ${name}.`)),
  ];
}

function partial({ partitions_ok: ok, partitions_total: total, missing = [], documents }) {
  const which = missing.length ? ` (missing: ${missing.join(", ")})` : "";
  const searched = `Only ${percent(documents)} of the documents were searched`;
  return `${searched}: ${ok} of ${total} partitions answered${which}.`;
}

function notice(title, text) {
  return element("p", { class: "notice warn" }, element("strong", {}, title), " ", text);
}
