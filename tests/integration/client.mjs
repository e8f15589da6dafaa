// The public client's way in Node: see test_real_clients.py. Prints each step; exit code 1 and the reason where one fails.
import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import mqtt from "mqtt";

const [http, websocket, template, user] = process.argv.slice(2);
const LONG_SECONDS = 60; // where nothing is to expire, however slow the machine is
const PATIENCE_MS = 15000;
const API = `${http}/rtc-api/users/endpoints`;

const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

async function token(form) {
  const answer = await fetch(`${http}/rtc-api/security/oauth/token`, { method: "POST", body: new URLSearchParams(form) });
  assert.equal(answer.status, 200);
  return answer.json();
}

async function post(bearer, path, body) {
  const headers = { Authorization: `Bearer ${bearer}`, "Content-Type": "application/json" };
  return fetch(`${API}${path}`, { method: "POST", headers, body: JSON.stringify(body) });
}

async function register(bearer, userEndpointId, keepAliveSeconds = LONG_SECONDS) {
  const answer = await post(bearer, "", { keepAliveSeconds, userId: user, userEndpointId });
  assert.equal(answer.status, 200);
  assert.equal(await answer.json(), userEndpointId);
}

async function keepAlive(bearer, userEndpointId) {
  const answer = await post(bearer, "/keepalive", { userId: user, userEndpointId });
  assert.equal(await answer.text(), "");
  return answer.status;
}

async function connect(bearer, endpoint, heard) {
  const options = { username: user, password: bearer, clientId: user, clean: true, reconnectPeriod: 0 };
  const client = await mqtt.connectAsync(websocket, options);
  client.on("message", (_topic, payload) => heard.push(JSON.parse(payload)));
  const topic = template.replace("{user}", user).replace("{endpoint}", endpoint);
  const [granted] = await client.subscribeAsync(topic, { qos: 1 });
  assert.equal(granted.qos, 1);
  return client;
}

async function send(bearer, number) {
  const event = { type: "MessageArrivedEvent", timestamp: new Date().toISOString(), number };
  const body = { event, userId: user, organizationId: "default", qos: 1 };
  const answer = await post(bearer, "/sendEvent", body);
  assert.equal(answer.status, 200);
  return answer.json();
}

async function expect(heard, fits) {
  const end = Date.now() + PATIENCE_MS;
  for (;;) {
    const found = heard.find(fits);
    if (found) return found;
    assert.ok(Date.now() < end, `not heard: ${fits}; heard ${JSON.stringify(heard)}`);
    await sleep(20);
  }
}

const step = (text) => console.log(text);

const service = (await token({ grant_type: "client_credentials", client_id: "sender" })).access_token;
let tokens = await token({ grant_type: "password", username: user, password: "secret of hers" });
const heard = [];

step("registers and hears");
let endpoint = randomUUID();
await register(tokens.access_token, endpoint);
let client = await connect(tokens.access_token, endpoint, heard);
assert.equal(await send(service, 1), 1);
await expect(heard, (event) => event.number === 1);

step("keeps itself alive");
await register(tokens.access_token, endpoint, 4);
for (const end = Date.now() + 5000; Date.now() < end; await sleep(200)) {
  assert.equal(await keepAlive(tokens.access_token, endpoint), 204);
}
await register(tokens.access_token, endpoint);

step("renews its token and comes back");
tokens = await token({ grant_type: "refresh_token", refresh_token: tokens.refresh_token });
await client.endAsync();
client = await connect(tokens.access_token, endpoint, heard);
assert.equal(await send(service, 2), 1);
await expect(heard, (event) => event.number === 2);

step("is thrown out by a device with its client id, and comes back");
const thrownOut = new Promise((resolve) => client.once("close", resolve));
const other = await connect(tokens.access_token, randomUUID(), []);
await thrownOut;
assert.equal(await keepAlive(tokens.access_token, endpoint), 204);
await other.endAsync();
client = await connect(tokens.access_token, endpoint, heard);
assert.equal(await send(service, 3), 1);
await expect(heard, (event) => event.number === 3);

step("sleeps too long and takes a new id");
await register(tokens.access_token, endpoint, 1);
await client.endAsync();
const end = Date.now() + PATIENCE_MS;
while ((await send(service, 4)) !== 0) {
  assert.ok(Date.now() < end, "it did not expire");
  await sleep(200);
}
assert.equal(await keepAlive(tokens.access_token, endpoint), 404);
endpoint = randomUUID();
await register(tokens.access_token, endpoint);
client = await connect(tokens.access_token, endpoint, heard);
assert.equal(await send(service, 5), 1);
await expect(heard, (event) => event.number === 5);

step("says goodbye");
const farewell = await post(tokens.access_token, "/unregister", { userEndpointId: endpoint, reason: "User logout" });
assert.equal(farewell.status, 204);
const told = await expect(heard, (event) => event.type === "UserEndpointUnregisteredEvent");
assert.equal(told.reason, "User logout");
assert.match(told.timestamp, /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/);
await client.endAsync();
assert.equal(await send(service, 6), 0);
console.log("done");
