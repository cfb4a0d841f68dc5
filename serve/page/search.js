/** The view that searches: what to look for and how, and the hits. */

import { announce } from "./announce.js";
import { element, fill, invite } from "./dom.js";
import { asFailure, failureBox } from "./failures.js";
import { offerFields } from "./fields.js";
import { hitList } from "./hits.js";
import { shortfallsOfSearch } from "./shortfalls.js";
import { count } from "./text.js";
import { timingBar } from "./timings.js";

const DEFAULTS = { mode: "hybrid", k: "10", by: "document", where: "" };

export class SearchView {
  #api;
  #catalogue;
  #panel;
  #changed;
  #running = null;
  #shown = ""; // the request whose hits are there
  #query = document.getElementById("query");
  #rerank = document.getElementById("rerank");
  #results = document.getElementById("results");
  #controls = Object.fromEntries(Object.keys(DEFAULTS).map((name) => [name, document.getElementById(name)]));

  /** `changed()` is called when what a link should show is another. */
  constructor(api, catalogue, panel, changed) {
    this.#api = api;
    this.#catalogue = catalogue;
    this.#panel = panel;
    this.#changed = changed;
    document.getElementById("search-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#search();
    });
    catalogue.addEventListener("change", () => this.#offer());
  }

  /** The fields of a link to this view: what differs from the defaults. */
  get fields() {
    const differing = Object.entries(this.#controls).filter(([name, control]) => control.value !== DEFAULTS[name]);
    const values = Object.fromEntries(differing.map(([name, control]) => [name, control.value]));
    return {
      q: this.#query.value.trim(),
      index: this.#catalogue.index,
      ...values,
      rerank: this.#rerank.checked ? "on" : "",
    };
  }

  /** Take over the fields of a link, and search if they ask for other hits than are shown. */
  show(fields) {
    this.#query.value = fields.q ?? "";
    for (const [name, control] of Object.entries(this.#controls)) control.value = fields[name] ?? DEFAULTS[name];
    for (const name of ["mode", "by"]) this.#controls[name].value ||= DEFAULTS[name];
    this.#rerank.checked = fields.rerank === "on";
    if (this.#query.value.trim() && JSON.stringify(this.#request()) !== this.#shown) this.#search();
  }

  /** The view has become visible. */
  enter() {
    invite(this.#query);
  }

  #offer() {
    offerFields(document.getElementById("fields"), this.#controls.where, this.#catalogue.metadata);
    document.getElementById("rerank-choice").hidden = !this.#catalogue.reranks;
  }

  #request() {
    const { mode, by, k, where } = this.#controls;
    return {
      query: this.#query.value.trim(),
      index: this.#catalogue.index,
      mode: mode.value,
      k: Number(k.value),
      by: by.value,
      ...(where.value.trim() && { where: where.value.trim() }),
      ...(this.#catalogue.reranks && { rerank: this.#rerank.checked }),
    };
  }

  async #search() {
    const request = this.#request();
    if (!request.query) return;
    this.#running?.abort();
    const running = new AbortController();
    this.#running = running;
    this.#shown = JSON.stringify(request);
    this.#changed();
    this.#results.setAttribute("aria-busy", "true");
    announce("Searching");
    try {
      this.#list(await this.#api.post("v1/search", request, running.signal), request.query);
    } catch (error) {
      if (running.signal.aborted) return;
      fill(
        this.#results,
        failureBox(asFailure(error), () => this.#search()),
      );
    }
    this.#results.setAttribute("aria-busy", "false");
  }

  #list({ hits, index, snapshot, coverage, degraded, timings }, query) {
    const summary = `${hits.length ? count(hits.length, "hit") : "Nothing found"} in ${index}, snapshot ${snapshot}`;
    announce(summary);
    fill(
      this.#results,
      element("p", { class: "summary" }, summary),
      ...shortfallsOfSearch({ coverage, degraded }),
      !hits.length && element("p", { class: "empty" }, "Try other words, another mode, or a wider filter."),
      timingBar(timings),
      hits.length > 0 && hitList(hits, query, this.#panel),
    );
  }
}
