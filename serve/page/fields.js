/** Fields that the filter of an index may ask about, offered as buttons that write them into the filter's box. */

import { element, fill, foreign } from "./dom.js";

const BUILT_IN = { doc_id: "string", title: "string", heading: "string", page: "int", source: "string" };
const EXAMPLES = {
  int: (name) => `${name} >= 1`,
  float: (name) => `${name} < 0.5`,
  bool: (name) => `${name} = true`,
  timestamp: (name) => `${name} >= '2026-01-31'`,
  "list<string>": (name) => `${name} in ('…')`,
};

/** Offer the fields of an index with the `metadata` columns `{name: type}`; a press writes into `box`. */
export function offerFields(group, box, metadata) {
  const columns = Object.entries(metadata).map(([name, type]) => [
    Object.hasOwn(BUILT_IN, name) ? `metadata.${name}` : name,
    type,
  ]);
  const offered = [...columns, ...Object.entries(BUILT_IN)];
  fill(
    group,
    ...offered.map(([name, type]) => {
      const write = () => insert(box, written(name));
      return element(
        "button",
        { type: "button", class: "field", onclick: write },
        foreign(name),
        " ",
        element("small", {}, type),
      );
    }),
  );
  const examples = offered.slice(0, 2).map(([name, type]) => example(written(name), type));
  box.placeholder = examples.join(" and ");
}

/** A field as the filter's language has it: a plain word, or anything in quotes. */
export function written(name) {
  const plain = /^[A-Za-z_][A-Za-z0-9_./-]*$/.test(name) && !/^(and|or|not|in|exists|true|false)$/i.test(name);
  return plain ? name : `"${name.replace(/["\\]/g, "\\$&")}"`;
}

function example(name, type) {
  return Object.hasOwn(EXAMPLES, type) ? EXAMPLES[type](name) : `${name} = '…'`;
}

function insert(box, word) {
  const { selectionStart: start, selectionEnd: end, value } = box;
  const before = start > 0 && !/[\s(]/.test(value[start - 1]) ? " " : "";
  const after = /^\s/.test(value.slice(end)) ? "" : " ";
  box.setRangeText(before + word + after, start, end, "end");
  box.focus();
}
