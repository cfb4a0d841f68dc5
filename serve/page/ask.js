/** The view that asks: a conversation, and the box for its next question. */

import { announce } from "./announce.js";
import { invite } from "./dom.js";
import { asFailure } from "./failures.js";
import { Turn } from "./turn.js";

export class AskView {
  question = ""; // the last one, for links
  #api;
  #catalogue;
  #panel;
  #changed;
  #turns = []; // those whose answer counts as said
  #running = null;
  #form = document.getElementById("ask-form");
  #box = document.getElementById("question");
  #conversation = document.getElementById("conversation");
  #send = document.getElementById("send");
  #stop = document.getElementById("stop");
  #fresh = document.getElementById("fresh");

  /** `changed()` is called when what a link should show is another. */
  constructor(api, catalogue, panel, changed) {
    this.#api = api;
    this.#catalogue = catalogue;
    this.#panel = panel;
    this.#changed = changed;
    this.#form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#submit();
    });
    this.#box.addEventListener("keydown", (event) => {
      // Enter also ends the spelling of a Chinese word.
      if (event.key !== "Enter" || event.shiftKey || event.isComposing || event.keyCode === 229) return;
      event.preventDefault();
      this.#submit();
    });
    this.#stop.addEventListener("click", () => this.#running?.abort());
    this.#fresh.addEventListener("click", () => this.#clear());
  }

  /** The fields of a link to this view. */
  get fields() {
    return { q: this.question, index: this.#catalogue.index, model: this.#catalogue.model };
  }

  /** Put the question of a link into the box; it is not asked before the user does. */
  show({ q = "" }) {
    if (q && q !== this.question) this.#box.value = q;
    this.question = q;
  }

  /** The view has become visible. */
  enter() {
    invite(this.#box);
  }

  #submit() {
    const question = this.#box.value.trim();
    if (!question || this.#running) return;
    this.#box.value = "";
    this.question = question;
    this.#changed();
    this.#ask(question);
  }

  async #ask(question) {
    const turn = new Turn(question, this.#panel);
    this.#conversation.append(turn.element);
    document.getElementById("invitation").hidden = true;
    turn.element.scrollIntoView({ block: "start" });
    announce("Answering");
    this.#run(new AbortController());
    try {
      const stream = this.#api.stream("v1/chat/completions", this.#request(question), this.#running.signal);
      for await (const chunk of stream) turn.take(chunk);
      turn.finish();
      this.#turns.push(turn);
      announce("Answered");
    } catch (error) {
      this.#ended(turn, error);
    } finally {
      this.#run(null);
    }
  }

  #ended(turn, error) {
    if (error.name === "AbortError") {
      turn.stop();
      if (turn.text) this.#turns.push(turn);
      announce("Stopped");
      return;
    }
    turn.fail(asFailure(error), () => {
      if (this.#running) return;
      turn.element.remove();
      this.#ask(turn.question);
    });
  }

  #request(question) {
    const said = this.#turns.flatMap((turn) => [
      { role: "user", content: turn.question },
      { role: "assistant", content: turn.text },
    ]);
    const { model, index } = this.#catalogue;
    return { model, index, messages: [...said, { role: "user", content: question }], stream: true };
  }

  #run(controller) {
    const wasFocused = this.#stop === document.activeElement;
    this.#running = controller;
    this.#stop.hidden = controller === null;
    this.#send.hidden = controller !== null;
    this.#fresh.hidden = controller !== null;
    if (wasFocused) this.#box.focus({ preventScroll: true });
  }

  #clear() {
    this.#turns = [];
    this.#panel.close();
    this.#conversation.replaceChildren();
    document.getElementById("invitation").hidden = false;
    this.#fresh.hidden = true;
    this.question = "";
    this.#changed();
    this.#box.focus();
  }
}
