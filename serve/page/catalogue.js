/**
 * What is served, and which index and model are chosen among it; tells "change" when either is another.
 *
 * Guaranteed: what is chosen is served, or empty when nothing is.
 */

import { options } from "./dom.js";

export class Catalogue extends EventTarget {
  indexes = [];
  models = [];
  index = "";
  model = "";

  /** Ask the server; the choices stay, where they are still served. */
  async load(api) {
    const [indexes, models] = await Promise.all([api.get("v1/indexes"), api.get("v1/models")]);
    this.indexes = indexes.data;
    this.models = models.data;
    this.choose({});
  }

  /** Choose an index, a model or both; what is not served leaves the choice as it was. */
  choose({ index = this.index, model = this.model }) {
    const [indexes, generators] = [this.indexes.map(({ id }) => id), this.#generators()];
    const chosen = this.indexes.find((one) => one.default)?.id ?? indexes[0] ?? "";
    this.index = [index, this.index, chosen].find((id) => indexes.includes(id)) ?? "";
    this.model = [model, this.model, generators[0]].find((id) => generators.includes(id)) ?? "";
    this.dispatchEvent(new Event("change"));
  }

  /** The metadata columns of the chosen index, `{name: type}`. */
  get metadata() {
    return this.indexes.find(({ id }) => id === this.index)?.metadata ?? {};
  }

  /** Whether hits can be reranked. */
  get reranks() {
    return this.models.some(({ kind }) => kind === "reranker");
  }

  /** Let a <select> show and change the index. */
  bindIndex(select) {
    this.#bind(select, () => this.indexes.map(({ id }) => id), "index");
  }

  /** Let a <select> show and change the model. */
  bindModel(select) {
    this.#bind(select, () => this.#generators(), "model");
  }

  #bind(select, names, field) {
    select.addEventListener("change", () => this.choose({ [field]: select.value }));
    this.addEventListener("change", () => {
      options(
        select,
        names().map((name) => [name, name]),
        this[field],
      );
      select.disabled = names().length < 2;
    });
  }

  #generators() {
    return this.models.filter(({ kind }) => kind === "generator").map(({ id }) => id);
  }
}
