// Dead letters: rejected events and the reasons. An admin can mend, replay or purge them.

import { byId, make, name, say, show } from "./dom.js";
import { bytes, counted, moment, number } from "./format.js";
import { get, isAdmin, send } from "./server.js";

const PAGE = 20;
const selected = new Set();
const list = byId("letters-list");
let next = null;

export function start() {
  byId("letters-more").addEventListener("click", () => load({ more: true }));
  byId("replay").addEventListener("click", () => act(() => send("POST", "deadletters/replay", { ids: ids() }), replayed));
  byId("purge").addEventListener("click", () => {
    if (!confirm(`Delete ${counted(selected.size, "dead letter")} for ever?`)) return;
    const query = new URLSearchParams(ids().map((id) => ["id", id]));
    act(() => send("DELETE", `deadletters?${query}`), ({ purged }) => `${counted(purged, "letter")} deleted.`);
  });
  list.addEventListener("change", ({ target }) => {
    if (target.type !== "checkbox") return;
    if (target.checked) selected.add(target.value);
    else selected.delete(target.value);
    drawActions();
  });
}

const ids = () => [...selected].map(Number);

function replayed({ stored, duplicate, rejected, missing, letters }) {
  const parts = [`${counted(stored, "event")} stored`];
  if (duplicate) parts.push(`${number(duplicate)} had been stored before`);
  if (rejected) parts.push(`${number(rejected)} refused again: ${letters.find(({ status }) => status === "rejected").reason}`);
  if (missing) parts.push(`${number(missing)} gone`);
  return `${parts.join(", ")}.`;
}

/** Send a request, reload the list, and show the outcome in `words`. */
async function act(request, words) {
  try {
    const outcome = words(await request());
    await load();
    showStatus(outcome);
  } catch (error) {
    showStatus(error.message);
  }
}

function showStatus(words) {
  say(byId("letters-status"), words);
  show(byId("letters-status"), Boolean(words));
}

export function empty(is) {
  if (is) showStatus("None");
}

export async function load({ more = false } = {}) {
  let page;
  try {
    page = (await get("deadletters", { limit: PAGE, before: more ? next : "" })).value;
  } catch (error) {
    showStatus(error.absent ? "Not available on this server" : error.message);
    return;
  }
  const opened = list.querySelector("details[open]");
  if (opened && !more && opened.contains(document.activeElement)) return; // a dead letter is being edited
  if (!more) {
    list.replaceChildren();
    selected.clear();
  }
  list.append(...page.letters.map(articleOf));
  next = page.next;
  showStatus(list.children.length ? "" : "None. Every event so far was stored.");
  show(byId("letters-more"), next !== null);
  drawActions();
}

function drawActions() {
  show(byId("letters-actions"), isAdmin() && list.children.length > 0);
  byId("replay").disabled = byId("purge").disabled = !selected.size;
  say(byId("letters-chosen"), selected.size ? `${selected.size} selected` : "Select what to replay or purge");
}

function articleOf(letter) {
  const facts = [`${moment(letter.receivedAt)} UTC`, letter.source && `from ${letter.source}`, letter.messageId && `message ${letter.messageId}`, bytes(letter.size), letter.tries && `replayed ${counted(letter.tries, "time")} in vain`];
  const details = make("details", {}, make("summary", {}, "As it came"));
  details.addEventListener("toggle", () => details.open && details.children.length === 1 && open(details, letter.id));
  return make("article", { class: "letter" },
    isAdmin() ? make("input", { type: "checkbox", value: letter.id, "aria-label": `Select letter ${letter.id}` }) : null,
    make("div", {}, make("p", {}, name(letter.reason)), make("p", { class: "hint" }, name(`#${letter.id} · ${facts.filter(Boolean).join(" · ")}`)), make("p", { class: "preview" }, name(letter.preview)), details));
}

/** The event as sent; an admin can edit it. */
async function open(details, id) {
  let letter;
  try {
    letter = (await get(`deadletters/${id}`)).value;
  } catch (error) {
    details.append(make("p", { class: "error" }, error.message));
    return;
  }
  const isText = letter.encoding === "utf-8";
  const note = `${isText ? "" : "This is base64: it is no text. "}${letter.cut ? "There was more, which was not kept. " : ""}`;
  if (note) details.append(make("p", { class: "hint" }, note));
  const text = isText ? pretty(letter.raw) : letter.raw;
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
