/** One question and its answer, as they are shown: words, sources, what is missing, how long it took. */

import { AnswerText } from "./answer.js";
import { element, fill, put } from "./dom.js";
import { failureBox } from "./failures.js";
import { shortfallsOfAnswer } from "./shortfalls.js";
import { Sources } from "./sources.js";
import { count } from "./text.js";
import { timingBar } from "./timings.js";

export class Turn {
  text = "";
  #reply = {};
  #drawing = 0;
  #sources;
  #shown;
  #waiting = element("p", { class: "waiting" }, "Searching");
  #notices = element("div", { class: "notices" });
  #below = element("div", { class: "below" });
  #answer;

  /** Passages are opened in `panel`. */
  constructor(question, panel) {
    this.question = question;
    this.#sources = new Sources(panel);
    const heading = element("h2", { class: "question", lang: "", dir: "auto" }, question);
    const words = element("div", { class: "words", lang: "", dir: "auto" });
    this.#shown = new AnswerText(words, (citation, marker) => this.#sources.open(citation, marker));
    const attributes = { class: "reply", "aria-live": "polite", "aria-busy": "true" };
    this.#answer = element("div", attributes, this.#waiting, words, this.#notices);
    this.element = element("article", { class: "turn" }, heading, this.#answer, this.#below);
  }

  /** Take in the next chunk of the stream. */
  take(chunk) {
    for (const field of ["model", "coverage", "grounded", "snapshot", "timings", "degraded"]) {
      if (chunk[field] !== undefined) this.#reply[field] = chunk[field];
    }
    this.#sources.take(chunk);
    const choice = chunk.choices?.[0];
    this.text += choice?.delta?.content ?? "";
    if (choice?.finish_reason) this.#reply.finish = choice.finish_reason;
    this.#drawing ||= requestAnimationFrame(() => this.#draw());
  }

  /** The answer is whole. */
  finish() {
    const cited = this.#sources.citations.length > 0;
    this.#end(...shortfallsOfAnswer({ ...this.#reply, cited }));
    put(this.#below, timingBar(this.#reply.timings), this.#foot());
  }

  /** The user did not want the rest. */
  stop() {
    this.#end(element("p", { class: "notice" }, "Stopped."));
  }

  /** There is no answer, or not all of it; `again` asks once more. */
  fail(failure, again) {
    this.#end(failureBox(failure, again));
  }

  #draw() {
    cancelAnimationFrame(this.#drawing);
    this.#drawing = 0;
    const found = this.#sources.found;
    fill(this.#waiting, found ? `Reading ${count(found, "passage")}` : "Searching");
    this.#waiting.hidden = this.text !== "";
    this.#shown.show(this.text, this.#sources.citations);
  }

  #end(...notices) {
    this.#draw();
    this.#waiting.remove();
    put(this.#notices, ...notices);
    this.#answer.setAttribute("aria-busy", "false");
    put(this.#below, ...this.#sources.list());
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
    const tell = (said) => fill(button, said);
    button.addEventListener("click", () => {
      const copied = [this.text, this.#sources.notes().join("\n")].filter(Boolean).join("\n\n");
      navigator.clipboard.writeText(copied).then(
        () => tell("Copied"),
        () => tell("Could not copy"),
      );
    });
    return button;
  }
}
