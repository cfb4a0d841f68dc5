/** One question and its answer, as they are shown: words, sources, what is missing, how long it took. */

import { AnswerText } from "./answer.js";
import { element, fill, foreign, put } from "./dom.js";
import { failureBox } from "./failures.js";
import { shortfalls } from "./shortfalls.js";
import { count } from "./text.js";
import { timingBar } from "./timings.js";

export class Turn {
  text = "";
  #citations = [];
  #sources = new Map();
  #reply = {};
  #drawing = 0;
  #waiting = element("p", { class: "waiting" }, "Searching");
  #words = element("div", { class: "words", lang: "", dir: "auto" });
  #notices = element("div", { class: "notices" });
  #answer = element("div", { class: "reply", "aria-live": "polite", "aria-busy": "true" }, this.#waiting, this.#words, this.#notices);
  #below = element("div", { class: "below" });
  #shown = new AnswerText(this.#words, (citation, marker) => this.#open(citation, marker));
  #panel;

  constructor(question, panel) {
    this.question = question;
    this.#panel = panel;
    const heading = element("h2", { class: "question", lang: "", dir: "auto" }, question);
    this.element = element("article", { class: "turn" }, heading, this.#answer, this.#below);
  }

  /** Take in the next chunk of the stream. */
  take(chunk) {
    for (const field of ["model", "coverage", "grounded", "snapshot", "timings", "degraded"]) {
      if (chunk[field] !== undefined) this.#reply[field] = chunk[field];
    }
    for (const source of chunk.sources ?? []) this.#sources.set(source.number, source);
    if (chunk.citation) this.#citations.push(chunk.citation);
    if (chunk.citations) this.#citations = chunk.citations;
    const choice = chunk.choices?.[0];
    this.text += choice?.delta?.content ?? "";
    if (choice?.finish_reason) this.#reply.finish = choice.finish_reason;
    this.#drawing ||= requestAnimationFrame(() => this.#draw());
  }

  /** The answer is whole. */
  finish() {
    this.#end();
    put(this.#notices, ...shortfalls({ ...this.#reply, cited: this.#citations.length > 0, answer: true }));
    fill(this.#below, this.#sourceList(), timingBar(this.#reply.timings), this.#foot());
  }

  /** The user did not want the rest. */
  stop() {
    this.#end();
    put(this.#notices, element("p", { class: "notice" }, "Stopped."));
    fill(this.#below, this.#sourceList());
  }

  /** There is no answer, or not all of it; `again` asks once more. */
  fail(failure, again) {
    this.#end();
    put(this.#notices, failureBox(failure, again));
    fill(this.#below, this.#sourceList());
  }

  #draw() {
    cancelAnimationFrame(this.#drawing);
    this.#drawing = 0;
    const found = this.#sources.size;
    fill(this.#waiting, found ? `Reading ${count(found, "passage")}` : "Searching");
    this.#waiting.hidden = this.text !== "";
    this.#shown.show(this.text, this.#citations);
  }

  #end() {
    this.#draw();
    this.#waiting.remove();
    this.#answer.setAttribute("aria-busy", "false");
  }

  #open(citation, opener) {
    const passage = this.#sources.get(citation.number) ?? { ...citation, text: citation.quote };
    this.#panel.open(passage, citation, opener);
  }

  #sourceList() {
    const cited = new Map();
    for (const citation of this.#citations) if (!cited.has(citation.number)) cited.set(citation.number, citation);
    const others = [...this.#sources.values()].filter((source) => !cited.has(source.number));
    const line = (source, citation) => {
      const opener = sourceLine(source);
      opener.addEventListener("click", () => this.#panel.open(source, citation, opener));
      return element("li", {}, opener);
    };
    const first = [...cited].map(([number, citation]) => line(this.#sources.get(number) ?? { ...citation, text: citation.quote }, citation));
    return [
      first.length > 0 && element("ol", { class: "sources", "aria-label": "Sources" }, ...first),
      others.length > 0 &&
        element(
          "details",
          {},
          element("summary", {}, `${count(others.length, first.length ? "more passage" : "passage")} retrieved, not cited`),
          element("ol", { class: "sources" }, ...others.map((source) => line(source, null))),
        ),
    ].filter(Boolean);
  }

  #foot() {
    const { model, snapshot } = this.#reply;
    const made = [model, snapshot && `${snapshot.index}, snapshot ${snapshot.number}`].filter(Boolean);
    return element("p", { class: "foot" }, made.join(" · "), this.#copyButton());
  }

  #copyButton() {
    // Browsers offer the clipboard only to pages that came by https or from this machine.
    if (!navigator.clipboard) return null;
    const button = element("button", { type: "button", class: "quiet" }, "Copy");
    button.addEventListener("click", async () => {
      const copied = await navigator.clipboard.writeText(this.#plain()).then(() => true, () => false);
      fill(button, copied ? "Copied" : "Could not copy");
    });
    return button;
  }

  #plain() {
    const names = new Map(this.#citations.map((citation) => [citation.number, this.#sources.get(citation.number) ?? citation]));
    const notes = [...names].map(([number, source]) => `[${number}] ${[source.title, source.source].filter(Boolean).join(", ")}`);
    return [this.text, notes.join("\n")].filter(Boolean).join("\n\n");
  }
}

function sourceLine(source) {
  const page = source.page ? `p. ${source.page}` : "";
  return element(
    "button",
    { type: "button", class: "source" },
    element("span", { class: "number" }, `[${source.number}]`),
    element(
      "span",
      { class: "name" },
      foreign(source.title || source.source || source.doc_id),
      source.heading && foreign(source.heading, { class: "heading" }),
      page && element("span", { class: "heading" }, page),
    ),
  );
}
