// Calls the clients for Node: node send.cjs PACKAGE WRITE_KEY URL OPTIONS < CALLS. Prints what the client gave up.
const { readFileSync } = require("node:fs");

const [name, writeKey, url, options] = process.argv.slice(2);
const calls = JSON.parse(readFileSync(0, "utf8"));
const lost = [];

function dated(call) {
  const { type, ...rest } = call;
  return rest.timestamp ? { ...rest, timestamp: new Date(rest.timestamp) } : rest;
}

async function segment() {
  const { Analytics } = require("@segment/analytics-node");
  const client = new Analytics({ writeKey, host: url, ...JSON.parse(options) });
  client.on("error", (error) => lost.push(String(error.reason ?? error.code)));
  for (const call of calls) client[call.type](dated(call));
  await client.closeAndFlush({ timeout: 30000 });
}

async function rudder() {
  const Client = require("@rudderstack/rudder-sdk-node");
  const client = new Client(writeKey, { dataPlaneUrl: url, errorHandler: () => {}, ...JSON.parse(options) });
  await Promise.all(calls.map((call) => new Promise((done) => {
    client[call.type](dated(call), (error) => { if (error) lost.push(String(error)); done(); });
  })));
}

({ "@segment/analytics-node": segment, "@rudderstack/rudder-sdk-node": rudder })[name]()
  .then(() => { console.log(JSON.stringify(lost)); process.exit(0); });
