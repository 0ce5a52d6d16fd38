// The connection to the server: the key, requests, and the stream of /live.

const KEY = "lakebed-key";
const SILENCE_MS = 45_000; // three heartbeats
const LONGEST_WAIT_MS = 15_000;
const HIDDEN_MS = 30_000;

let memory = null; // used if sessionStorage is forbidden

export function key() {
  try {
    return sessionStorage.getItem(KEY) ?? memory;
  } catch {
    return memory;
  }
}

export function keep(value) {
  memory = value;
  try {
    if (value) sessionStorage.setItem(KEY, value);
    else sessionStorage.removeItem(KEY);
  } catch {
    // it is in memory
  }
}

/** Reads a key in the address, `#key=…`, and removes it there. The browser never sends that part of an address. */
export function takeKeyFromAddress() {
  const match = /^#key=([\w.~-]+)$/.exec(location.hash);
  if (!match) return false;
  keep(match[1]);
  history.replaceState(null, "", location.pathname + location.search);
  return true;
}

/** Whether the server requires a key and the page has none, so that no request would succeed. */
export const needsKey = () => document.documentElement.dataset.keys === "required" && !key();

/** Whether the key may replay and purge. Without keys any client may; the server decides in any case. */
export const isAdmin = () => !key() || key().startsWith("lba_");

export class Failure extends Error {
  constructor(message, { status = 0, code = "", details = {}, retryAfter = null } = {}) {
    super(message);
    Object.assign(this, { status, code, details, retryAfter });
  }

  /** The server has no such route. */
  get absent() {
    return (this.status === 404 && !("object" in this.details)) || this.status === 405;
  }

  /** The object does not exist yet: no event was ever sent. */
  get empty() {
    return this.status === 404 && "object" in this.details;
  }

  get unreachable() {
    return this.status === 0;
  }
}

const headers = () => (key() ? { Authorization: `Bearer ${key()}` } : {});

async function failureOf(response) {
  let error = {};
  try {
    error = (await response.json()).error ?? {};
  } catch {
    // the page of a proxy
  }
  const failure = new Failure(error.message || `The server answered ${response.status}`, {
    status: response.status,
    code: error.code ?? "",
    details: error.details ?? {},
    retryAfter: Number(response.headers.get("retry-after")) || null,
  });
  if (response.status === 401 || (response.status === 403 && failure.code === "WRONG_SCOPE" && failure.details.needs === "read")) {
    dispatchEvent(new CustomEvent("refused", { detail: failure }));
  }
  return failure;
}

async function request(path, options = {}) {
  let response;
  try {
    response = await fetch(path, { cache: "no-store", credentials: "omit", ...options, headers: { ...headers(), ...options.headers } });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Failure("The server does not answer");
  }
  if (!response.ok) throw await failureOf(response);
  return response;
}

/** A response as JSON, with its tiers and its milliseconds. */
export async function get(path, parameters = {}, signal) {
  const query = new URLSearchParams(Object.entries(parameters).filter(([, value]) => value !== "" && value !== null && value !== undefined));
  const response = await request(query.size ? `${path}?${query}` : path, { signal });
  const duration = /dur=([\d.]+)/.exec(response.headers.get("server-timing") ?? "");
  return { value: await response.json(), tiers: response.headers.get("lakebed-tiers") ?? "", ms: duration ? Number(duration[1]) : null };
}

/** A whole number that JavaScript would round becomes text. */
const exact = (_, value, context) => (Number.isInteger(value) && !Number.isSafeInteger(value) && context?.source ? context.source : value);

export async function send(method, path, body, signal) {
  const response = await request(path, {
    method,
    signal,
    body: body === undefined ? undefined : JSON.stringify(body),
    headers: { Accept: "application/json", ...(body === undefined ? {} : { "Content-Type": "application/json" }) },
  });
  const text = await response.text();
  return text ? JSON.parse(text, exact) : null;
}

export const pause = (ms, signal) =>
  new Promise((resolve) => {
    const timer = setTimeout(resolve, ms);
    signal.addEventListener("abort", () => { clearTimeout(timer); resolve(); }, { once: true });
  });

/**
 * Follows /live while the page is open. EventSource cannot send a key, so this reads the stream itself.
 *
 * Calls `on.snapshot(snapshot)` with each message, and `on.state(state, failure, waitMs)`: "live" before each message,
 * "reconnecting" when the stream ended. While the tab is hidden the stream is closed.
 */
export class Live {
  constructor(on) {
    this.on = on;
    this.attempts = 0;
    this.stopped = true;
    this.again = new AbortController();
    this.stream = null;
    document.addEventListener("visibilitychange", () => this.#visibilityChanged());
    addEventListener("online", () => this.hurry());
    addEventListener("pagehide", () => this.stream?.abort());
  }

  start() {
    if (this.stopped) {
      this.stopped = false;
      this.#follow();
    }
    this.hurry();
  }

  stop() {
    this.stopped = true;
    this.stream?.abort();
    this.again.abort();
  }

  /** Start the next attempt at once. */
  hurry() {
    this.attempts = 0;
    this.again.abort();
  }

  #visibilityChanged() {
    clearTimeout(this.hiding);
    if (document.hidden) this.hiding = setTimeout(() => this.stream?.abort(), HIDDEN_MS);
    else this.hurry();
  }

  async #follow() {
    while (!this.stopped) {
      let failure = null;
      try {
        await this.#read();
      } catch (error) {
        failure = error instanceof Failure ? error : new Failure("The server does not answer");
      }
      if (this.stopped) return;
      const wait = this.#wait(failure);
      this.on.state("reconnecting", failure, wait);
      this.again = new AbortController();
      await pause(wait, this.again.signal);
      while (document.hidden && !this.stopped) await pause(1000, this.again.signal);
    }
  }

  #wait(failure) {
    const backoff = Math.min(LONGEST_WAIT_MS, 1000 * 2 ** this.attempts++);
    return failure?.retryAfter ? failure.retryAfter * 1000 : backoff * (0.75 + Math.random() / 2);
  }

  async #read() {
    this.stream = new AbortController();
    const response = await request("live", { signal: this.stream.signal });
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    let silence;
    try {
      for (;;) {
        silence = setTimeout(() => this.stream.abort(), SILENCE_MS);
        const { value, done } = await reader.read();
        clearTimeout(silence);
        if (done) return;
        const blocks = (rest + value).split("\n\n");
        rest = blocks.pop();
        for (const block of blocks) this.#take(block);
      }
    } finally {
      clearTimeout(silence);
      this.stream.abort();
    }
  }

  #take(block) {
    const data = block.split("\n").filter((line) => line.startsWith("data: ")).map((line) => line.slice(6)).join("\n");
    if (!data || block.includes("event: trouble")) return;
    this.attempts = 0;
    this.on.state("live", null, 0);
    this.on.snapshot(JSON.parse(data));
  }
}
