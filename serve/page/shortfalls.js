/** What a reply lacks, said in words where it is shown: no answer, a part of the index, a stage left out. */

import { element } from "./dom.js";
import { percent } from "./text.js";

const LEFT_OUT = {
  rerank: "Reranking was left out: the passages are in the order of retrieval.",
  condense: "The question was not completed from the turns before it.",
};

/** The notices of a reply; `answer` is true for answers, false for hits. */
export function shortfalls({ answer, grounded, cited, finish, coverage, degraded = [] }) {
  return [
    answer && grounded === false && !cited && notice("Not answered", "Nothing in the documents supports an answer well enough."),
    answer && grounded === false && cited && notice("Not verified", "Some of this cannot be traced to the passages it cites."),
    finish === "length" && notice("Cut short", "The answer reached its limit of length."),
    coverage?.degraded && notice("Incomplete", partial(coverage, answer)),
    ...degraded.filter((name) => name !== "partition").map((name) => notice("Degraded", LEFT_OUT[name] ?? `Left out: ${name}.`)),
  ].filter(Boolean);
}

function partial(coverage, answer) {
  const { partitions_ok: ok, partitions_total: total, missing = [], documents } = coverage;
  const which = missing.length ? ` (missing: ${missing.join(", ")})` : "";
  const effect = answer ? "The answer may lack what the rest holds." : "Hits in the rest are not listed.";
  return `Only ${percent(documents)} of the documents were searched: ${ok} of ${total} partitions answered${which}. ${effect}`;
}

function notice(title, text) {
  return element("p", { class: "notice warn" }, element("strong", {}, title), " ", text);
}
