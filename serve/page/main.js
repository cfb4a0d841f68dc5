/** The page: which view is shown, with what, and by whose key. */

import * as address from "./address.js";
import { Api } from "./api.js";
import { AskView } from "./ask.js";
import { Catalogue } from "./catalogue.js";
import { fill } from "./dom.js";
import { asFailure, failureBox, notThere } from "./failures.js";
import { Key, KeyForm } from "./key.js";
import { Panel } from "./panel.js";
import { SearchView } from "./search.js";
import { StatusView } from "./status.js";

class Page {
  #key = new Key();
  #fields = address.read((key) => this.#key.keep(key));
  #api = new Api(this.#key, (failure) => this.#lock(failure));
  #keyForm = new KeyForm(this.#key, () => this.#open());
  #catalogue = new Catalogue();
  #panel = new Panel();
  #views;
  #tabs = document.getElementById("tabs");
  #changeKey = document.getElementById("change-key");
  #loading = document.getElementById("loading");
  #current = null;
  #locked = false;

  constructor() {
    const changed = () => this.#shown();
    this.#views = {
      ask: new AskView(this.#api, this.#catalogue, this.#panel, changed),
      search: new SearchView(this.#api, this.#catalogue, this.#panel, changed),
      status: new StatusView(this.#api),
    };
    for (const id of ["ask-index", "search-index"]) this.#catalogue.bindIndex(document.getElementById(id));
    this.#catalogue.bindModel(document.getElementById("ask-model"));
    this.#catalogue.addEventListener("change", changed);
    for (const tab of this.#tabs.children) tab.addEventListener("click", () => this.#turnTo(tab.dataset.tab));
    this.#changeKey.addEventListener("click", () => {
      this.#key.keep("");
      this.#lock();
    });
    addEventListener("popstate", () => this.#follow());
    this.#open();
  }

  async #open() {
    this.#locked = false;
    fill(this.#loading);
    try {
      await this.#catalogue.load(this.#api);
    } catch (error) {
      if (!this.#locked)
        fill(
          this.#loading,
          failureBox(asFailure(error), () => this.#open()),
        );
      return;
    }
    // The rest of the page is of use even so: Status says more.
    const { index, model } = this.#catalogue;
    if (!index || !model)
      fill(
        this.#loading,
        failureBox(notThere(index, model), () => this.#open()),
      );
    this.#tabs.hidden = false;
    this.#changeKey.hidden = !this.#key.value;
    this.#visit(this.#fields);
  }

  /** Show nothing but the form for a key, and what the server said of the last one. */
  #lock(failure = null) {
    this.#locked = true;
    this.#leave();
    this.#tabs.hidden = true;
    this.#changeKey.hidden = true;
    this.#keyForm.ask(failure && this.#key.value ? `${failure.title}. ${failure.message}` : "");
  }

  #follow() {
    let taken = false;
    this.#fields = address.read((key) => {
      this.#key.keep(key);
      taken = true;
    });
    if (taken) this.#open();
    else if (!this.#locked) this.#visit(this.#fields);
  }

  /** Show the view of a link, as the link says. */
  #visit(fields) {
    const { tab = "ask", index, model, ...rest } = fields;
    const name = Object.hasOwn(this.#views, tab) ? tab : "ask";
    this.#enter(name);
    this.#catalogue.choose({ index, model });
    this.#views[name].show(rest);
    this.#shown();
  }

  #turnTo(name) {
    this.#enter(name);
    address.push({ tab: name, ...this.#views[name].fields });
  }

  #enter(name) {
    if (this.#current === name) return;
    this.#leave();
    this.#current = name;
    for (const tab of this.#tabs.children)
      tab.setAttribute("aria-current", tab.dataset.tab === name ? "page" : "false");
    document.getElementById(name).hidden = false;
    document.title = `${name[0].toUpperCase()}${name.slice(1)} – Tandem`;
    this.#views[name].enter();
  }

  #leave() {
    if (!this.#current) return;
    this.#panel.close();
    this.#views[this.#current].leave?.();
    document.getElementById(this.#current).hidden = true;
    this.#current = null;
  }

  /** Let the address say what is shown. */
  #shown() {
    if (!this.#current) return;
    this.#fields = { tab: this.#current, ...this.#views[this.#current].fields };
    address.replace(this.#fields);
  }
}

new Page();
