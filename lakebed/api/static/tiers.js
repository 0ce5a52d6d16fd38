// The tiers L0 to L3, and the position of each consumer of the log.

import { byId, make, name, say, shape, show } from "./dom.js";
import { bytes, counted, date, moment, number, time } from "./format.js";
import { get } from "./server.js";

export function empty(is) {
  say(byId("tiers-note"), is ? "They fill with the first event" : "");
}

/** Loads and draws the tiers; returns the first and the last day that have events. */
export async function load() {
  let tiers;
  try {
    tiers = (await get("tiers")).value;
  } catch (error) {
    if (error.unreachable) return null;
    byId("tiers-error").textContent = error.absent ? "Not available on this server." : error.message;
    show(byId("tiers-error"), true);
    return null;
  }
  show(byId("tiers-error"), false);
  say(byId("tiers-note"), `as of ${time(Date.now())} UTC`);
  drawFlow(tiers);
  drawSpan(tiers);
  drawConsumers(tiers);
  drawSnapshots(tiers.archive);
  return [tiers.first_day, tiers.last_day];
}

const step = (level, title, about, facts) =>
  make("li", { class: "card" }, make("p", { class: "level" }, level), make("h3", {}, title), make("p", { class: "hint" }, about),
    make("dl", {}, ...facts.map(([word, value]) => make("div", {}, make("dt", {}, word), make("dd", {}, value)))));

function drawFlow({ counters, log, consumers, storage_bytes, archive, disk, first_day, last_day }) {
  const rollups = consumers.filter((consumer) => consumer.name.startsWith("rollup:"));
  const behind = Math.max(0, ...rollups.map(({ lag }) => lag));
  const trouble = { busy: "busy with a long run", unavailable: "does not answer" }[archive.trouble];
  byId("flow").replaceChildren(
    step("L0", "Counters", "now, in memory", [["Keys alive", number(counters.keys)], ["Room for", number(counters.max_keys)], ["Evicted", number(counters.evicted)]]),
    step("L1", "Log", "durable before the ack", [["Segments", `${number(log.segments)} · ${bytes(log.sealed_bytes)}`], ["In the tail", `${number(log.tail_events)} · ${bytes(log.tail_bytes)}`], ["Waiting", number(log.pending)]]),
    step("L2", "Rollups", "by hour and day, in SQLite", [["Rollups", number(rollups.length)], ["Behind by", number(behind)], ["On disk", bytes(storage_bytes)], ["Days", first_day ? `${date(first_day)} – ${date(last_day)}` : "–"]]),
    step("L3", "Archive", "for ever, in Iceberg", trouble ? [["State", trouble], ["Watermark", number(archive.watermark)]] : [["Events", number(archive.rows)], ["Files", `${number(archive.files)} · ${bytes(archive.bytes)}`], ["Snapshots", number(archive.snapshots_kept)], ["Watermark", number(archive.watermark)]]),
  );
  const low = disk.free < 2 * disk.headroom;
  byId("flow").append(make("li", { class: `card disk${low ? " low-disk" : ""}` }, make("h3", {}, "Disk"),
    make("meter", { min: 0, max: disk.total, value: disk.total - disk.free, "aria-label": `Disk: ${bytes(disk.free)} free of ${bytes(disk.total)}` }),
    make("p", { class: "hint" }, `${bytes(disk.free)} free of ${bytes(disk.total)}; below ${bytes(disk.headroom)} events are refused`)));
}

/** The positions of events on a line: those in the archive, and those still in the log. The two overlap. */
function drawSpan({ log, archive }) {
  const end = Math.max(1, log.next_seq);
  const at = (seq) => (1000 * Math.min(seq, end)) / end;
  const bar = (from, until, y, className) => shape("rect", { x: at(from), width: Math.max(until > from ? 2 : 0, at(until) - at(from)), y, height: 14, rx: 2, class: className });
  const words = `Of ${counted(log.next_seq, "position")}, the archive has those before ${number(archive.watermark)}, the log those from ${number(log.first_seq)} on`;
  const picture = shape("svg", { viewBox: "0 0 1000 36", preserveAspectRatio: "none", class: "span", role: "img", "aria-label": words },
    shape("rect", { x: 0, y: 0, width: 1000, height: 14, rx: 2, class: "span-none" }), shape("rect", { x: 0, y: 20, width: 1000, height: 14, rx: 2, class: "span-none" }),
    bar(0, archive.watermark, 0, "span-archive"), bar(log.first_seq, log.next_seq, 20, "span-log"));
  const key = make("ul", { class: "legend" }, make("li", {}, make("span", { class: "swatch swatch-archive", "aria-hidden": "true" }), `Archive: ${number(archive.watermark)} (${log.next_seq ? Math.floor((100 * archive.watermark) / log.next_seq) : 0} %)`),
    make("li", {}, make("span", { class: "swatch swatch-log", "aria-hidden": "true" }), `Log: ${number(log.next_seq - log.first_seq)}`),
    make("li", { class: "hint" }, `${counted(log.next_seq, "position")} of events and saved documents, oldest first`));
  byId("span").replaceChildren(key, picture);
}

function drawConsumers({ consumers }) {
  byId("consumers").replaceChildren(...consumers.map((consumer) =>
    make("tr", {}, make("td", {}, name(consumer.name.replace("rollup:", ""))), make("td", { class: "number" }, number(consumer.next_seq)),
      make("td", { class: "number" }, consumer.lag ? number(consumer.lag) : make("span", { class: "good" }, "up to date")))));
}

function drawSnapshots({ snapshots, snapshots_kept: count }) {
  show(byId("snapshots-none"), count === 0);
  byId("snapshots").closest(".scroll").hidden = !snapshots?.length;
  byId("snapshots").replaceChildren(...(snapshots ?? []).map((snapshot) =>
    make("tr", { title: `Snapshot ${snapshot.id}` }, make("td", {}, moment(snapshot.committed_at)), make("td", {}, snapshot.operation), make("td", { class: "number" }, number(snapshot.watermark)),
      make("td", { class: "number" }, number(snapshot.rows)), make("td", {}, name(snapshot.tags.join(", "))))));
}
