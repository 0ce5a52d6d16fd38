// Drives a server with the unmodified npm client. `node rpc.mjs MODULES SCENARIO URL`; prints one JSON value.
import path from "node:path";
import { pathToFileURL } from "node:url";

const [modules, scenario, url] = process.argv.slice(2);
const { newHttpBatchRpcSession, newWebSocketRpcSession } = await import(
  pathToFileURL(path.join(modules, "capnweb/dist/index.js"))
);

let posts = 0;
const realFetch = globalThis.fetch;
globalThis.fetch = (...request) => {
  posts += 1;
  return realFetch(...request);
};
const batch = () => newHttpBatchRpcSession(url);
const socket = () => newWebSocketRpcSession(url.replace(/^http/, "ws"));
const refused = async (promise) => {
  try {
    return { value: await promise };
  } catch (error) {
    return {
      class: error.constructor.name,
      message: error.message,
      type: error.type,
      code: error.code,
      status: error.status,
      stack: String(error.stack).includes(".py"),
    };
  }
};
const until = async (condition) => {
  while (!condition()) await new Promise((resolve) => setTimeout(resolve, 10));
};
// What JSON cannot say, said.
const shown = (value) =>
  value instanceof Date
    ? { date: value.toISOString() }
    : typeof value === "bigint"
      ? { bigint: String(value) }
      : value instanceof Uint8Array
        ? { bytes: [...value] }
        : typeof value === "number" && !Number.isFinite(value)
          ? { number: String(value) }
          : value === undefined
            ? { undefined: true }
            : Array.isArray(value)
              ? value.map(shown)
              : value && typeof value === "object"
                ? Object.fromEntries(Object.entries(value).map(([name, item]) => [name, shown(item)]))
                : value;

async function calls(api) {
  const receipt = api.track("Seen", { page: "/", nested: [[1, [2]], []] }, { userId: "alice", messageId: "m1" });
  const again = api.track("Seen", {}, { messageId: "m1" });
  const rows = api.dau({ days: 2 });
  const today = api.Analytics("tom").dau(1)[0].dau;
  const mapped = rows.map((row) => ({ day: row.date, people: row.dau, stats: api.stats().next_seq }));
  const events = api.counters.get("events:Seen");
  const missing = api.timeseries("Seen").map((row) => row.value);
  const found = { receipt, again, rows, today, mapped, events, missing: refused(missing) };
  // All are asked for before the batch leaves: what nobody awaits by then is not sent back.
  const values = await Promise.all(Object.values(found));
  return Object.fromEntries(Object.keys(found).map((name, at) => [name, values[at]]));
}

const scenarios = {
  async batch() {
    const api = batch();
    const promised = calls(api);
    return { ...(await promised), posts };
  },
  async socket() {
    const api = socket();
    const found = await calls(api);
    api[Symbol.dispose]();
    return found;
  },
  async values() {
    // A literal is pushed and comes back: `counters` is the one place that keeps numbers of any kind.
    const api = socket();
    const found = {
      big: await api.counters.incr("big", 2n ** 60n),
      float: await api.counters.incr("float", 0.5),
      nan: await refused(api.counters.incr("nan", NaN)),
      bytes: await api.batch(new TextEncoder().encode('[{"event":"a"},{"event":"b"}]')).map((receipt) => receipt.status),
      dated: await api.track("Dated", { at: new Date(1) }, { timestamp: new Date("2026-01-01T00:00:00.123Z") }).status,
      undef: await api.dau(undefined)[0].dau,
      none: await api.counters.ttl("big"),
      asOf: await refused(api.dau(1, { asOf: new Date("2999-01-01") })),
    };
    api[Symbol.dispose]();
    return found;
  },
  async errors() {
    const api = socket();
    const found = {};
    for (const name of ["nope", "hidden", "close", "open", "__class__", "_components", "query_untrusted"])
      found[name] = await refused(api[name]());
    found.arguments = await refused(api.dau("x"));
    found.event = await refused(api.track(""));
    found.index = await refused(api.dau(1)[7].dau);
    found.column = await refused(api.dau(1)[0].nope);
    found.stream = await refused(api.batch(new ReadableStream({ start: (c) => c.close() })));
    found.alive = await api.counters.count("*");
    api[Symbol.dispose]();
    return found;
  },
  async watch() {
    const api = socket();
    const seen = [];
    const watch = await api.counters.watch("clicks:*", (changed) => {
      seen.push(changed);
    });
    await until(() => seen.length === 1);
    await api.counters.incr("clicks:a");
    await api.counters.incr("clicks:b", 2);
    await until(() => seen.some((changed) => "clicks:b" in changed));
    await api.counters.incr("clicks:a");
    await until(() => seen.some((changed) => changed["clicks:a"] === 2));
    watch[Symbol.dispose]();
    const live = [];
    const other = await api.live((changed) => {
      live.push(changed);
    });
    await until(() => live.length === 1);
    await api.track("Seen");
    await until(() => live.length === 2);
    other[Symbol.dispose]();
    await api.stats();
    await new Promise((resolve) => setTimeout(resolve, 50));
    api[Symbol.dispose]();
    return { seen: Object.assign({}, ...seen), first: live[0].next_seq, next: live[1].next_seq };
  },
  async keyed() {
    const key = process.env.LAKEBED_KEY;
    const wrong = await refused(batch().authenticate("lk_wrong").stats());
    const none = await refused(batch().stats());
    const right = await batch().authenticate(key).stats().next_seq;
    const api = socket();
    const mine = api.authenticate(key);
    const over = await mine.stats().next_seq;
    const other = await refused(mine.Analytics("other").stats());
    api[Symbol.dispose]();
    const headers = { Authorization: `Bearer ${key}` };
    const header = await newHttpBatchRpcSession(new Request(url, { headers, method: "POST" })).stats().next_seq;
    return { wrong, none, right, over, other, header };
  },
  async forget() {
    const api = batch();
    api.track("Forgotten");
    return { stored: await api.counters.count("nothing:*") };
  },
};

console.log(JSON.stringify(shown(await scenarios[scenario]())));
process.exit(0);
