// Dead letters: what was refused, and why. Whoever may can mend, replay or purge them.

import { byId, make, name, say, show } from "./dom.js";
import { bytes, counted, moment, number } from "./format.js";
import { get, isAdmin, send } from "./server.js";

const PAGE = 20;
const chosen = new Set();
const list = byId("letters-list");
let next = null;

export function start() {
  byId("letters-more").addEventListener("click", () => load({ more: true }));
  byId("replay").addEventListener("click", () => act(() => send("POST", "deadletters/replay", { ids: ids() }), replayed));
  byId("purge").addEventListener("click", () => {
    if (!confirm(`Delete ${counted(chosen.size, "dead letter")} for ever?`)) return;
    const which = new URLSearchParams(ids().map((id) => ["id", id]));
    act(() => send("DELETE", `deadletters?${which}`), ({ purged }) => `${counted(purged, "letter")} deleted.`);
  });
  list.addEventListener("change", ({ target }) => {
    if (target.type !== "checkbox") return;
    if (target.checked) chosen.add(target.value);
    else chosen.delete(target.value);
    drawActions();
  });
}

const ids = () => [...chosen].map(Number);

function replayed({ stored, duplicate, rejected, missing, letters }) {
  const told = [`${counted(stored, "event")} stored`];
  if (duplicate) told.push(`${number(duplicate)} had been stored before`);
  if (rejected) told.push(`${number(rejected)} refused again: ${letters.find(({ status }) => status === "rejected").reason}`);
  if (missing) told.push(`${number(missing)} gone`);
  return `${told.join(", ")}.`;
}

/** Do it, draw the list anew, and say what became of it. */
async function act(request, words) {
  try {
    const said = words(await request());
    await load();
    tell(said);
  } catch (error) {
    tell(error.message);
  }
}

function tell(words) {
  say(byId("letters-status"), words);
  show(byId("letters-status"), Boolean(words));
}

export function empty(is) {
  if (is) tell("None");
}

export async function load({ more = false } = {}) {
  let found;
  try {
    found = (await get("deadletters", { limit: PAGE, before: more ? next : "" })).value;
  } catch (error) {
    tell(error.absent ? "Not available on this server" : error.message);
    return;
  }
  const opened = list.querySelector("details[open]");
  if (opened && !more && opened.contains(document.activeElement)) return; // somebody is mending one
  if (!more) {
    list.replaceChildren();
    chosen.clear();
  }
  list.append(...found.letters.map(letter));
  next = found.next;
  tell(list.children.length ? "" : "None. Every event so far was stored.");
  show(byId("letters-more"), next !== null);
  drawActions();
}

function drawActions() {
  show(byId("letters-actions"), isAdmin() && list.children.length > 0);
  byId("replay").disabled = byId("purge").disabled = !chosen.size;
  say(byId("letters-chosen"), chosen.size ? `${chosen.size} selected` : "Select what to replay or purge");
}

function letter(one) {
  const facts = [`${moment(one.receivedAt)} UTC`, one.source && `from ${one.source}`, one.messageId && `message ${one.messageId}`, bytes(one.size), one.tries && `replayed ${counted(one.tries, "time")} in vain`];
  const details = make("details", {}, make("summary", {}, "As it came"));
  details.addEventListener("toggle", () => details.open && details.children.length === 1 && open(details, one.id));
  return make("article", { class: "letter" },
    isAdmin() ? make("input", { type: "checkbox", value: one.id, "aria-label": `Select letter ${one.id}` }) : null,
    make("div", {}, make("p", {}, name(one.reason)), make("p", { class: "hint" }, name(`#${one.id} · ${facts.filter(Boolean).join(" · ")}`)), make("p", { class: "preview" }, name(one.preview)), details));
}

/** The whole of what was sent; for who may, to be mended. */
async function open(details, id) {
  let found;
  try {
    found = (await get(`deadletters/${id}`)).value;
  } catch (error) {
    details.append(make("p", { class: "error" }, error.message));
    return;
  }
  const isText = found.encoding === "utf-8";
  const note = `${isText ? "" : "This is base64: it is no text. "}${found.cut ? "There was more, which was not kept. " : ""}`;
  if (note) details.append(make("p", { class: "hint" }, note));
  const text = isText ? pretty(found.raw) : found.raw;
  if (!isAdmin()) {
    details.append(make("pre", { dir: "auto", tabindex: "0" }, text));
    return;
  }
  const field = make("textarea", { rows: Math.min(14, text.split("\n").length + 1), dir: "auto", spellcheck: "false", "aria-label": `Text of letter ${id}` });
  field.value = text;
  const button = make("button", { type: "button" }, "Replay as written here");
  button.addEventListener("click", () => {
    button.focus();
    details.open = false;
    act(() => send("POST", "deadletters/replay", { ids: [id], text: field.value }), replayed);
  });
  details.append(field, make("p", { class: "actions" }, button));
}

function pretty(raw) {
  try {
    return JSON.stringify(JSON.parse(raw), null, 2);
  } catch {
    return raw;
  }
}
