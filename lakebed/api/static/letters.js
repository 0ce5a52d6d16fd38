// Dead letters: what was refused, and why. Whoever may can replay or purge them.

import { byId, make, name, say, show } from "./dom.js";
import { counted, moment } from "./format.js";
import { get, isAdmin, send } from "./server.js";

const PAGE = 20;
const chosen = new Set();
let oldest = null;

export function start() {
  byId("letters-more").addEventListener("click", () => load({ more: true }));
  byId("replay").addEventListener("click", () => act("Replay", () => send("POST", "deadletters/replay", { ids: ids() }), replayed));
  byId("purge").addEventListener("click", () => {
    if (confirm(`Delete ${counted(chosen.size, "dead letter")} for ever?`)) act("Purge", () => send("DELETE", "deadletters", { ids: ids() }), (answer) => `${counted(answer.purged ?? answer.deleted ?? chosen.size, "letter")} deleted.`);
  });
  byId("letters-list").addEventListener("change", ({ target }) => {
    if (target.checked) chosen.add(target.value);
    else chosen.delete(target.value);
    drawActions();
  });
}

const ids = () => [...chosen].map((id) => (/^\d+$/.test(id) ? Number(id) : id));

function replayed(answer) {
  const stored = answer.stored ?? 0;
  const again = answer.rejected ?? 0;
  return `${counted(stored, "event")} stored, ${answer.duplicate ?? 0} known already, ${again} refused again.`;
}

async function act(what, request, words) {
  try {
    const said = words((await request()) ?? {});
    chosen.clear();
    await load();
    say(byId("letters-status"), said);
    show(byId("letters-status"), true);
  } catch (error) {
    say(byId("letters-status"), `${what} failed: ${error.message}`);
    show(byId("letters-status"), true);
  }
}

export function empty(is) {
  if (is) say(byId("letters-status"), "None");
}

export async function load({ more = false } = {}) {
  const status = byId("letters-status");
  let found;
  try {
    const { value } = await get("deadletters", { limit: PAGE, before: more ? oldest : "" });
    found = Array.isArray(value) ? value : (value.deadletters ?? value.letters ?? []);
  } catch (error) {
    show(status, true);
    say(status, error.absent ? "Not available on this server" : error.message);
    show(byId("letters-more"), false);
    if (!error.unreachable) byId("letters-list").replaceChildren();
    return;
  }
  if (!more) {
    byId("letters-list").replaceChildren();
    chosen.clear();
  }
  byId("letters-list").append(...found.map(letter));
  oldest = found.at(-1)?.id ?? oldest;
  const any = byId("letters-list").children.length > 0;
  show(status, !any);
  say(status, any ? "" : "None. Every event so far was stored.");
  show(byId("letters-more"), found.length === PAGE);
  drawActions();
}

function drawActions() {
  show(byId("letters-actions"), isAdmin() && byId("letters-list").children.length > 0);
  byId("replay").disabled = byId("purge").disabled = !chosen.size;
  say(byId("letters-chosen"), chosen.size ? `${chosen.size} selected` : "Select what to replay or purge");
}

function letter(one) {
  const id = String(one.id);
  const raw = one.raw ?? one.body ?? one.event ?? "";
  const box = isAdmin() ? make("input", { type: "checkbox", value: id, "aria-label": `Select letter ${id}` }) : null;
  const when = one.received_at ?? one.at;
  return make("article", { class: "letter" }, box,
    make("div", {},
      make("p", {}, name(one.reason ?? "?")),
      make("p", { class: "hint" }, `${when ? `${moment(when)} UTC` : ""}${one.source ? ` · ${one.source}` : ""} · #${id}`),
      make("details", {}, make("summary", {}, "As it came"), make("pre", { dir: "auto", tabindex: "0" }, pretty(raw)))));
}

function pretty(raw) {
  if (typeof raw !== "string") return JSON.stringify(raw, null, 2);
  try {
    return JSON.stringify(JSON.parse(raw), null, 2);
  } catch {
    return raw;
  }
}
