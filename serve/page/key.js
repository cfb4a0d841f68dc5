/**
 * The key that the server asks for: kept for this tab, in its session storage, until the tab is closed.
 *
 * A key in the address (`#key=...`) is taken over by `address.js`. Not guaranteed: that the key is kept over a reload,
 * where the browser allows no storage.
 */

const NAME = "tandem.key";

export class Key {
  #value;

  constructor() {
    this.#value = stored(() => sessionStorage.getItem(NAME)) ?? "";
  }

  /** The key; empty when there is none. */
  get value() {
    return this.#value;
  }

  /** Keep a key; an empty one forgets it. */
  keep(value) {
    this.#value = value;
    stored(() => (value ? sessionStorage.setItem(NAME, value) : sessionStorage.removeItem(NAME)));
  }
}

/** The form that asks for the key; `entered` is called once one is kept. */
export class KeyForm {
  #section = document.getElementById("key");
  #field = document.getElementById("key-value");
  #complaint = document.getElementById("key-complaint");

  constructor(key, entered) {
    document.getElementById("key-form").addEventListener("submit", (event) => {
      event.preventDefault();
      const value = this.#field.value.trim();
      // A header can carry nothing else, and the browser would call it a network error.
      if (!/^[\x21-\x7e]+$/.test(value))
        return this.ask("A key has letters, digits and signs, and no spaces. Enter it as it was given to you.");
      this.#field.value = "";
      this.#section.hidden = true;
      key.keep(value);
      entered();
    });
  }

  /** Show the form with what was wrong with the last key, if there was one. */
  ask(complaint = "") {
    this.#complaint.textContent = complaint;
    this.#section.hidden = false;
    this.#field.focus();
  }
}

function stored(access) {
  try {
    return access();
  } catch {
    return null;
  }
}
