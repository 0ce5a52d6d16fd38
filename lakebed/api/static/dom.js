// Elements with text. No function takes HTML: names of events and people, and errors, are shown and never parsed.

export const byId = (id) => document.getElementById(id);

/** An element. `options`: `class`, `title`, any attribute; children are nodes or text. */
export function make(tag, options = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(options)) {
    if (value === undefined || value === null || value === false) continue;
    element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

const SVG = "http://www.w3.org/2000/svg";

export function shape(tag, options = {}, ...children) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(options)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

/** Untrusted text: it has its own direction; the layout shortens it, and the tooltip has all of it. */
export const name = (text) => make("bdi", { class: "name", title: text }, text);

export function show(element, visible) {
  element.hidden = !visible;
}

export function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** The buttons of a switch: `select` is called with the id of the pressed button. */
export function oneOf(buttons, select) {
  for (const button of buttons) {
    button.addEventListener("click", () => {
      for (const other of buttons) other.setAttribute("aria-pressed", String(other === button));
      select(button.id);
    });
  }
}

export function table(columns, rows, { label } = {}) {
  const head = make("tr", {}, ...columns.map((column) => make("th", { scope: "col", class: column.number ? "number" : null }, column.name)));
  const body = rows.map((row) =>
    make("tr", {}, ...row.map((value, index) => make("td", { class: columns[index].number ? "number" : null }, value instanceof Node ? value : String(value)))));
  return make("table", { "aria-label": label }, make("thead", {}, head), make("tbody", {}, ...body));
}

/** A form control with its label. */
export const field = (label, control, className) => make("label", { class: className }, label, control);

export const input = (name, options) => make("input", { name, autocomplete: "off", spellcheck: "false", ...options });

/** `options`: the text of each value; the first is selected. */
export const select = (name, options) => make("select", { name }, ...Object.entries(options).map(([value, words]) => make("option", { value }, words)));
