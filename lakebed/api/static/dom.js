// Elements made of text. Nothing here takes HTML: what events, people and errors are called is shown, never read.

export const byId = (id) => document.getElementById(id);

/** An element. `options`: `class`, `title`, any attribute; children are nodes or text. */
export function make(tag, options = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(options)) {
    if (value === undefined || value === null || value === false) continue;
    made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

const SVG = "http://www.w3.org/2000/svg";

export function shape(tag, options = {}, ...children) {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(options)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

/** Text of strangers: its direction is its own, and it is cut by the layout, whole in the tooltip. */
export const name = (text) => make("bdi", { class: "name", title: text }, text);

export function show(element, visible) {
  element.hidden = !visible;
}

export function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** The buttons of a switch: `chosen` is called with the id of the one that is pressed. */
export function oneOf(buttons, chosen) {
  for (const button of buttons) {
    button.addEventListener("click", () => {
      for (const other of buttons) other.setAttribute("aria-pressed", String(other === button));
      chosen(button.id);
    });
  }
}

export function table(columns, rows, { label } = {}) {
  const head = make("tr", {}, ...columns.map((column) => make("th", { scope: "col", class: column.number ? "number" : null }, column.name)));
  const body = rows.map((row) =>
    make("tr", {}, ...row.map((value, at) => make("td", { class: columns[at].number ? "number" : null }, value instanceof Node ? value : String(value)))));
  return make("table", { "aria-label": label }, make("thead", {}, head), make("tbody", {}, ...body));
}

/** A control of a form beneath its label. */
export const field = (label, control, className) => make("label", { class: className }, label, control);

export const input = (name, options) => make("input", { name, autocomplete: "off", spellcheck: "false", ...options });

/** `options`: the words for each value; the first is chosen. */
export const select = (name, options) => make("select", { name }, ...Object.entries(options).map(([value, words]) => make("option", { value }, words)));
