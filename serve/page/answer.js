/**
 * The text of an answer with its citation markers, while it grows.
 *
 * Guaranteed: what is shown already stays the same node, so a marker keeps the focus and a screen reader reads only
 * what is new.
 */

import { element } from "./dom.js";
import { segments } from "./markers.js";
import { legible } from "./text.js";

export class AnswerText {
  #parent;
  #open;
  #shown = [];

  /** `open(citation, marker)` is called when a marker is pressed. */
  constructor(parent, open) {
    this.#parent = parent;
    this.#open = open;
  }

  /** Show `text` with the citations that have come so far. */
  show(text, citations) {
    const wanted = pieces(text, citations);
    let kept = 0;
    while (kept < Math.min(wanted.length, this.#shown.length) && same(wanted[kept], this.#shown[kept])) kept += 1;
    const [grown, before] = [wanted[kept], this.#shown[kept]];
    if (grown?.kind === "text" && before?.kind === "text") {
      before.node.data = legible(grown.text);
      before.text = grown.text;
      kept += 1;
    }
    for (const { node } of this.#shown.splice(kept)) node.remove();
    for (const piece of wanted.slice(kept)) {
      piece.node = this.#node(piece);
      this.#parent.append(piece.node);
      this.#shown.push(piece);
    }
  }

  #node({ kind, text, citation }) {
    if (kind === "text") return document.createTextNode(legible(text));
    if (kind === "gap") return element("span", { class: "gap" }, text);
    const name = `Citation ${citation.number}: ${legible(citation.title || citation.heading || citation.source || "")}`;
    const marker = element("button", { type: "button", class: "marker", "aria-label": name }, text);
    marker.addEventListener("click", () => this.#open(citation, marker));
    return marker;
  }
}

/** Segments with the ends of lines apart, so that quotes and paragraphs can stand apart. */
function pieces(text, citations) {
  return segments(text, citations).flatMap(({ text, citation }) => {
    if (citation) return [{ kind: "marker", text, citation }];
    const lines = text.split(/(\n+)/).filter(Boolean);
    return lines.map((line) => ({ kind: line[0] === "\n" ? "gap" : "text", text: line }));
  });
}

function same(one, other) {
  if (one.kind !== other.kind || one.text !== other.text) return false;
  return (
    one.kind !== "marker" || (one.citation.start === other.citation.start && one.citation.end === other.citation.end)
  );
}
