/**
 * The passage behind a citation or a hit: beside the page where there is room, else a sheet over it.
 *
 * Guaranteed: what is highlighted is exactly the quote; a span that does not cut the quote out of the passage is not
 * drawn, and said so. Escape closes it, and the focus goes back to where it came from.
 */

import { element, fill, foreign } from "./dom.js";
import { cut, webAddress } from "./text.js";

export class Panel {
  #dialog = document.getElementById("panel");
  #title = document.getElementById("panel-title");
  #facts = document.getElementById("panel-facts");
  #text = document.getElementById("panel-text");
  #narrow = matchMedia("(max-width: 63.99em)");
  #opener = null;

  constructor() {
    document.getElementById("panel-close").addEventListener("click", () => this.close());
    this.#dialog.addEventListener("close", () => this.#closed());
    this.#dialog.addEventListener("click", (event) => {
      // What is outside the sheet belongs to the dialog too: its backdrop.
      if (event.target === this.#dialog && !inside(this.#dialog, event)) this.close();
    });
    document.addEventListener("keydown", (event) => {
      if (event.key === "Escape" && this.#dialog.open && !event.isComposing) this.close();
    });
  }

  /**
   * Show a passage `{title, heading, page, source, doc_id, start, end, text, metadata?}` and highlight `quote`
   * `{start, end, quote, page}`, in code points of the document; null for none. `opener` gets the focus back.
   */
  open(passage, quote, opener) {
    this.#opener?.removeAttribute("aria-current");
    this.#opener = opener;
    opener.setAttribute("aria-current", "true");
    fill(this.#title, foreign(passage.title || passage.source || passage.doc_id));
    fill(this.#facts, ...facts(passage, quote));
    const highlighted = this.#show(passage, quote);
    if (!this.#dialog.open) {
      if (this.#narrow.matches) this.#dialog.showModal();
      else this.#dialog.show();
    }
    this.#dialog.scrollTop = 0;
    this.#text.scrollTop = 0;
    highlighted?.scrollIntoView({ block: "center" });
    this.#title.focus({ preventScroll: true });
  }

  /** Close it; nothing happens when it is closed. */
  close() {
    this.#dialog.close();
    this.#closed();
  }

  #show(passage, quote) {
    if (!quote) {
      fill(this.#text, passage.text);
      return null;
    }
    const [before, quoted, after] = cut(passage.text, quote.start - passage.start, quote.end - passage.start);
    if (quoted !== quote.quote) {
      fill(
        this.#text,
        element("p", { class: "notice warn" }, "The quoted words are not where the citation says."),
        passage.text,
      );
      return null;
    }
    const mark = element("mark", { class: "quoted" }, quoted);
    fill(this.#text, before, mark, after);
    return mark;
  }

  #closed() {
    const opener = this.#opener;
    this.#opener = null;
    opener?.removeAttribute("aria-current");
    if (opener?.isConnected) opener.focus({ preventScroll: true });
  }
}

function facts(passage, quote) {
  const page = quote?.page ?? passage.page;
  const metadata = Object.entries(passage.metadata ?? {});
  return [
    ...fact("Heading", passage.heading),
    ...fact("Page", page === null || page === undefined ? "" : String(page)),
    ...fact("Source", passage.source, sourceText(passage.source)),
    ...fact("Document", passage.doc_id),
    ...fact("Span", `${quote?.start ?? passage.start}–${quote?.end ?? passage.end}`),
    ...metadata.flatMap(([name, value]) => fact(name, Array.isArray(value) ? value.join(", ") : String(value))),
  ];
}

function fact(name, value, shown = foreign(value ?? "")) {
  return value ? [element("dt", {}, foreign(name)), element("dd", {}, shown)] : [];
}

function sourceText(source) {
  const address = webAddress(source);
  return address
    ? element("a", { href: address, target: "_blank", rel: "noopener noreferrer" }, foreign(source))
    : foreign(source ?? "");
}

function inside(box, event) {
  const { left, right, top, bottom } = box.getBoundingClientRect();
  return event.clientX >= left && event.clientX <= right && event.clientY >= top && event.clientY <= bottom;
}
