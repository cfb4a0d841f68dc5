/** The passages that an answer was made from, and which of them it cites. */

import { element, foreign } from "./dom.js";
import { count } from "./text.js";

export class Sources {
  citations = [];
  #passages = new Map();
  #panel;

  /** Passages are opened in `panel`. */
  constructor(panel) {
    this.#panel = panel;
  }

  /** How many passages were found. */
  get found() {
    return this.#passages.size;
  }

  /** Take in what a chunk of the stream says of them; the citations of the last one are all. */
  take(chunk) {
    for (const source of chunk.sources ?? []) this.#passages.set(source.number, source);
    if (chunk.citation) this.citations.push(chunk.citation);
    if (chunk.citations) this.citations = chunk.citations;
  }

  /** Open the passage of a citation, its quote highlighted; `opener` gets the focus back. */
  open(citation, opener) {
    this.#panel.open(this.#passage(citation), citation, opener);
  }

  /** The passages that are cited, each with its first citation, and, folded, the others. */
  list() {
    const cited = this.#cited();
    const others = [...this.#passages.values()].filter((passage) => !cited.has(passage.number));
    const first = [...cited.values()].map((citation) => this.#line(this.#passage(citation), citation));
    const rest = others.map((passage) => this.#line(passage, null));
    const folded = `${count(rest.length, first.length ? "more passage" : "passage")} retrieved, not cited`;
    return [
      first.length > 0 && element("ol", { class: "sources", "aria-label": "Sources" }, ...first),
      rest.length > 0 &&
        element("details", {}, element("summary", {}, folded), element("ol", { class: "sources" }, ...rest)),
    ];
  }

  /** The cited passages as lines of plain text. */
  notes() {
    return [...this.#cited()].map(([number, citation]) => {
      const { title, source } = this.#passage(citation);
      return `[${number}] ${[title, source].filter(Boolean).join(", ")}`;
    });
  }

  /** The first citation of each number. */
  #cited() {
    const first = new Map();
    for (const citation of this.citations) {
      if (!first.has(citation.number)) first.set(citation.number, citation);
    }
    return first;
  }

  #passage(citation) {
    return this.#passages.get(citation.number) ?? { ...citation, text: citation.quote };
  }

  #line(passage, citation) {
    const page = passage.page ? element("span", { class: "heading" }, `p. ${passage.page}`) : null;
    const opener = element(
      "button",
      { type: "button", class: "source" },
      element("span", { class: "number" }, `[${passage.number}]`),
      element(
        "span",
        { class: "name" },
        foreign(passage.title || passage.source || passage.doc_id),
        passage.heading && foreign(passage.heading, { class: "heading" }),
        page,
      ),
    );
    opener.addEventListener("click", () => this.#panel.open(passage, citation, opener));
    return element("li", {}, opener);
  }
}
