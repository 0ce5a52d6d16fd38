// Reports: one question at a time, its form, the address that it stands in, and its answer.

import { byId, make, oneOf, say, show } from "./dom.js";
import { date, moment, number, time } from "./format.js";
import { Range } from "./range.js";
import { pause, send } from "./server.js";

const SETTLES_MS = 150;

const section = byId("reports");
const form = section.querySelector("form");
const run = form.querySelector("button");
const shown = byId("report");
const note = byId("report-note");
const buttons = [...section.querySelectorAll(".switch button")];
const { preset, from, to, as_of: asOf, where } = form.elements;
const given = new URLSearchParams(location.search); // the question that the page was opened with
const views = {}; // those that were opened, by name: their fields, and what asks

let view = "funnel";
let known = null; // names of events, the most frequent first; null before there are any
let isWanted = false;
let running = 0;
let leftAt = 0;
let under = new AbortController();

const range = new Range({ preset, from, to }, (step) => fit(views[view]?.fields, step));

export function start() {
  oneOf(buttons, (id) => {
    view = id.slice(3);
    isWanted = true;
    begin();
    shown.replaceChildren();
    open().then(remember);
  });
  form.addEventListener("change", ({ target }) => {
    range.changed(target);
    remember();
    ask();
  });
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    range.renew();
    ask();
  });
  run.addEventListener("click", () => run.type === "button" && under.abort());
  const asked = byId(`as-${given.get("report")}`);
  if (buttons.includes(asked)) {
    view = given.get("report");
    for (const button of buttons) button.setAttribute("aria-pressed", String(button === asked));
    fill(form.elements);
    range.chosen = true;
    range.renew();
    isWanted = true;
  }
  new IntersectionObserver(([{ isIntersecting }], observer) => {
    if (!isIntersecting) return;
    observer.disconnect();
    if (!isWanted) open();
    isWanted = true;
  }).observe(section);
}

/** The names of events, the most frequent first. Before there are any, nothing is asked. */
export function names(found) {
  const isFirst = !known;
  known = found;
  if (!isFirst || !isWanted) return;
  open();
  if (given.has("report") && performance.getEntriesByType("navigation")[0]?.type === "navigate") section.scrollIntoView();
}

/** Days that have events, once they are known. */
export function days(first, last) {
  if (range.days(first, last) && views[view]) ask();
}

/** Nothing was ever stored. */
export function empty(is) {
  if (is) tell("No events yet");
}

async function open() {
  if (!known) return;
  const wanted = view;
  wait();
  let found;
  try {
    found = await import(`./${wanted}.js`);
  } catch {
    if (wanted === view) tell(failure("The server does not answer. Reload the page."));
    return;
  }
  if (wanted !== view) return;
  views[view] ??= shaped(found);
  for (const [name, { fields }] of Object.entries(views)) {
    show(fields, name === view);
    fields.disabled = name !== view; // what is disabled is no part of the question
  }
  await ask();
}

/** A report's part of the form, with what the address has of it. */
function shaped({ controls, answer }) {
  const fields = make("fieldset", { "aria-label": byId(`as-${view}`).textContent }, ...controls(known, given.getAll("step")));
  form.prepend(fields);
  fit(fields, range.step);
  if (given.get("report") === view) fill(fields.elements);
  return { answer, fields };
}

/** What is under way is given up for what comes next. The server takes a moment to do so too. */
function begin() {
  if (running) leftAt = Date.now();
  under.abort();
  under = new AbortController();
  return under.signal;
}

async function ask() {
  const signal = begin();
  if (!views[view]) return;
  const wrong = form.querySelector("input:invalid");
  const found = wrong ? `${wrong.parentElement.firstChild.data}: ${wrong.validationMessage}` : range.asked;
  if (typeof found === "string") return tell(found);
  wait();
  const all = { ...found, as_of: asOf.value ? `${asOf.value}Z` : null, where: where.value || null };
  const tiers = new Set();
  let ms = 0;
  const post = async (report, own) => {
    const { columns, rows, ...about } = await patient(report, { ...all, ...own }, signal);
    for (const tier of about.tiers) tiers.add(tier);
    ms += about.ms;
    return rows.map((row) => Object.fromEntries(row.map((value, at) => [columns[at].name, value])));
  };
  running++;
  try {
    if (Date.now() - leftAt < SETTLES_MS) await pause(SETTLES_MS, signal);
    signal.throwIfAborted();
    const now = Math.min(Date.now(), all.as_of ? Date.parse(all.as_of) : Infinity);
    const answer = await views[view].answer(new FormData(form), post, { ...all, now });
    if (signal.aborted) return;
    tell(answer);
    const asked = all.as_of ? moment(all.as_of) : time(now);
    say(note, `${date(found.start)} to ${date(Date.parse(found.end) - 1)}, as of ${asked} UTC · ${[...tiers].sort().join(", ")} · ${number(Math.round(ms))} ms`);
  } catch (error) {
    if (under.signal !== signal) return;
    if (signal.aborted) tell("Stopped");
    else tell(failure(error.message));
  } finally {
    running--;
  }
}

/** Where as many questions run as may, it asks again a little later. */
async function patient(report, body, signal, attempts = 3) {
  try {
    return await send("POST", `reports/${report}`, body, signal);
  } catch (error) {
    if (error.code !== "QUERY_BUSY" || !attempts) throw error;
    await pause(1000 * (error.retryAfter ?? 1), signal);
    return patient(report, body, signal, attempts - 1);
  }
}

const failure = (text) => make("p", { class: "error", role: "alert" }, text);

function busy(is) {
  shown.setAttribute("aria-busy", String(is));
  run.type = is ? "button" : "submit"; // Enter in a field is no click on "Stop"
  say(run, is ? "Stop" : "Run");
}

function wait() {
  busy(true);
  if (!shown.firstChild) shown.replaceChildren(make("div", { class: "card" }, make("div", { class: "skeleton" })));
}

/** Show an answer, or words. */
function tell(found) {
  busy(false);
  say(note, "");
  shown.replaceChildren(typeof found === "string" ? make("p", { class: "card none" }, found) : found);
}

function fit(fields, step) {
  const grain = fields?.elements.grain;
  if (grain) grain.value = step;
}

/** The question as it stands in the form goes into the address. */
function remember() {
  const asked = [...new FormData(form)].filter(([name, value]) => value && (preset.value === "custom" || (name !== "from" && name !== "to")));
  history.replaceState(null, "", `?${new URLSearchParams([["report", view], ...asked])}${location.hash}`);
}

/** The question in the address goes into the form. What no field can be is left out. */
function fill(controls) {
  for (const control of controls) {
    const [value, ...more] = given.getAll(control.name);
    if (value === undefined || more.length) continue;
    const before = control.value;
    if (control.type === "checkbox") control.checked = true;
    else control.value = value;
    if (!control.value) control.value = before;
  }
}
