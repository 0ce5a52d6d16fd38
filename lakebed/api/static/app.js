// The page: signs in, follows /live, and loads the rest when it may have changed.

import * as deadLetters from "./dead_letters.js";
import * as now from "./now.js";
import * as reports from "./reports.js";
import * as sql from "./sql.js";
import * as tiers from "./tiers.js";
import * as trends from "./trends.js";
import { redraw } from "./chart.js";
import { byId, make, say, show } from "./dom.js";
import { Live, keep, key, needsKey, takeKeyFromAddress } from "./server.js";

const TIERS_MS = 10_000;
const WORDS = { live: "Live", connecting: "Connecting", reconnecting: "Reconnecting", out: "Signed out" };

let state = "";
let loadedAt = 0;
let loadedSeq = -1;
let rejected = -1;
let isEmpty = null; // no event was ever stored, so there is nothing to load

const live = new Live({ snapshot: received, state: changed });

function received(snapshot) {
  now.draw(snapshot);
  document.title = `${snapshot.name} · Lakebed`;
  const wasEmpty = isEmpty;
  isEmpty = snapshot.events === 0;
  show(byId("empty"), isEmpty);
  if (isEmpty !== wasEmpty) loadAll();
  if (isEmpty) return;
  const names = snapshot.top_ever.map(([name]) => name);
  trends.names(names);
  reports.names(names);
  trends.mayHaveChanged(snapshot.next_seq);
  if (rejected !== -1 && snapshot.rejected !== rejected) deadLetters.load();
  rejected = snapshot.rejected;
  if (Date.now() - loadedAt > TIERS_MS && !document.hidden && (snapshot.next_seq !== loadedSeq || Date.now() - loadedAt > 6 * TIERS_MS)) loadTiers(snapshot.next_seq);
}

async function loadTiers(seq) {
  loadedAt = Date.now();
  loadedSeq = seq;
  const days = await tiers.load();
  if (!days) return;
  trends.days(...days);
  reports.days(...days);
}

function changed(next, failure, waitMs) {
  if (next === "reconnecting" && failure && !failure.unreachable && failure.status !== 503) banner(`${failure.message}. Trying again.`);
  else if (next === "reconnecting" && failure) banner(`${failure.message}. The numbers below may be old; trying again in ${Math.ceil(waitMs / 1000)} s.`);
  else show(byId("banner"), false);
  if (next === state) return;
  state = next;
  byId("status").dataset.state = next;
  say(byId("status"), navigator.onLine || next === "live" ? WORDS[next] : "Offline");
  byId("page").classList.toggle("stale", next === "reconnecting");
  document.body.classList.toggle("out", next === "out");
  if (next === "live" && isEmpty !== null) loadAll();
}

function banner(text) {
  say(byId("banner").firstElementChild, text);
  show(byId("banner"), true);
}

async function loadAll() {
  loadedAt = Date.now();
  for (const part of [trends, reports, deadLetters, tiers]) part.empty(isEmpty);
  if (isEmpty) return;
  deadLetters.load();
  await trends.refresh(); // it brings the rollups up to date, which have the days with events
  await loadTiers(loadedSeq);
}

// Signing in and out

function signedOut(words = "") {
  live.stop();
  changed("out");
  keep(null);
  show(byId("page"), false);
  show(byId("sign-in"), true);
  show(byId("sign-out"), false);
  show(byId("banner"), false);
  say(byId("sign-in-error"), words);
  byId("key").focus();
}

function signedIn() {
  show(byId("sign-in"), false);
  show(byId("page"), true);
  show(byId("sign-out"), Boolean(key()));
  snippets();
  changed("connecting");
  live.start();
}

addEventListener("refused", ({ detail }) => {
  if (byId("page").hidden) return;
  signedOut(detail.code === "KEY_UNKNOWN" ? "This key is unknown, or it was revoked or rotated." : key() ? detail.message : "");
});

byId("sign-in").querySelector("form").addEventListener("submit", (event) => {
  event.preventDefault();
  keep(byId("key").value.trim());
  byId("key").value = "";
  signedIn();
});
byId("sign-out").addEventListener("click", () => {
  signedOut();
  location.reload(); // so that no data stays in memory
});
byId("banner").querySelector("button").addEventListener("click", () => live.hurry());
addEventListener("offline", () => say(byId("status"), "Offline"));

// Theme: the system's, until the button changes it

const THEME = "lakebed-theme";
const dark = matchMedia("(prefers-color-scheme: dark)");

function theme(name) {
  const isDark = name ? name === "dark" : dark.matches;
  document.documentElement.dataset.theme = isDark ? "dark" : "light";
  byId("theme").setAttribute("aria-pressed", String(isDark));
  redraw();
}

function remembered() {
  try {
    return localStorage.getItem(THEME);
  } catch {
    return null;
  }
}

byId("theme").addEventListener("click", () => {
  const next = document.documentElement.dataset.theme === "dark" ? "light" : "dark";
  try {
    localStorage.setItem(THEME, next);
  } catch {
    // it applies to this page only
  }
  theme(next);
});
dark.addEventListener("change", () => theme(remembered()));

// How to send a first event

function snippet(title, text) {
  const button = make("button", { type: "button", class: "quiet" }, "Copy");
  const code = make("pre", { tabindex: "0" }, make("code", {}, text));
  button.setAttribute("aria-label", `Copy: ${title}`);
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(text);
      button.textContent = "Copied";
    } catch {
      getSelection().selectAllChildren(code); // the page may not write to the clipboard: the user copies the selection
      button.textContent = "Selected";
    }
  });
  return make("div", { class: "snippet" }, make("div", { class: "head" }, make("h3", {}, title), button), code);
}

function snippets() {
  const base = new URL(".", location.href).href.replace(/\/$/, "");
  const bearer = key() ? ' \\\n  -H "Authorization: Bearer $LAKEBED_WRITE_KEY"' : "";
  byId("empty").querySelector(".snippets").replaceChildren(
    snippet("curl", `curl ${base}/track${bearer} \\\n  -d '{"event": "Signed Up", "userId": "ann", "properties": {"plan": "pro"}}'`),
    snippet("Python, with Segment's SDK", `import segment.analytics as analytics\n\nanalytics.host = "${base}"\nanalytics.write_key = "${key() ? "YOUR_WRITE_KEY" : "any"}"\nanalytics.track("ann", "Signed Up", {"plan": "pro"})\nanalytics.flush()`),
  );
}

takeKeyFromAddress();
addEventListener("hashchange", () => takeKeyFromAddress() && location.reload()); // a key was added to the address of an open page
theme(remembered());
now.start();
trends.start();
reports.start();
sql.start();
deadLetters.start();
if (needsKey()) signedOut();
else signedIn();
