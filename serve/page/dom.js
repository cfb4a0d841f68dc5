/**
 * Elements, made from plain values.
 *
 * Guaranteed: text only ever becomes text nodes, and attributes are set by name and value, so nothing that a server
 * says is read as markup, as a style or as a script.
 */

import { legible } from "./text.js";

/**
 * An element with attributes and children. An attribute that is `true` is set empty, one that is `false`, null or
 * undefined is left out, and a function is listened with: `onclick` hears "click". Strings become legible text.
 */
export function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") made.addEventListener(name.replace(/^on/, ""), value);
    else if (value !== false && value !== null && value !== undefined)
      made.setAttribute(name, value === true ? "" : value);
  }
  put(made, ...children);
  return made;
}

/** Append children: nodes as they are, strings and numbers as legible text, null, undefined and false not at all. */
export function put(parent, ...children) {
  for (const child of children.flat()) {
    if (child === null || child === undefined || child === false) continue;
    parent.append(child instanceof Node ? child : legible(String(child)));
  }
}

/** Put children in the place of all that is there. */
export function fill(parent, ...children) {
  parent.replaceChildren();
  put(parent, ...children);
}

/** Text of a document in a line of ours: its direction and language stay inside. */
export function foreign(text, attributes = {}) {
  return element("bdi", { lang: "", ...attributes }, text);
}

/** Give a field the focus, unless that would bring a keyboard up over the page. */
export function invite(field) {
  if (matchMedia("(pointer: fine)").matches) field.focus({ preventScroll: true });
}

/** The options of a <select>, from pairs of value and label, with one of them chosen. */
export function options(select, pairs, chosen) {
  fill(select, ...pairs.map(([value, label]) => element("option", { value, selected: value === chosen }, label)));
}
