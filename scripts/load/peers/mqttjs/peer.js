// A peer of the bridge: mqtt.js and ioredis, as their documentation shows them; one Lua call for each message, as many
// at once as come.
//
// Usage: peer.js MQTT_PORT REDIS_PORT QOS PREFIX LUA_FILE. At QoS 1 mqtt.js acknowledges a message when it is received.
"use strict";
const { randomUUID } = require("crypto");
const { readFileSync } = require("fs");
const mqtt = require("mqtt");
const Redis = require("ioredis");

const [mqttPort, redisPort, qosText, prefix, luaFile] = process.argv.slice(2);
const qos = Number(qosText);
const redis = new Redis({ port: Number(redisPort) });
redis.defineCommand("keepStatus", { numberOfKeys: 3, lua: readFileSync(luaFile, "utf8") });
const client = mqtt.connect(`mqtt://127.0.0.1:${mqttPort}`, { protocolVersion: 5 });

client.on("connect", () => client.subscribe(`${prefix}presence/users/+/status`, { qos }));
client.on("message", async (topic, payload) => {
  const user = topic.split("/").at(-2);
  const status = payload.toString();
  const now = Date.now();
  const keys = [`${prefix}user:${user}`, `${prefix}endpoints:${user}`, `${prefix}heard`];
  const [version, ...endpoints] = await redis.keepStatus(...keys, status, now, user);
  const event = JSON.stringify({
    type: "UserStatusChangedEvent",
    id: randomUUID(),
    timestamp: new Date(now).toISOString(),
    organizationId: "default",
    about: `user/${user}`,
    version,
    uuid: user,
    status: JSON.parse(status),
    statusTimestamp: now,
  });
  for (const endpoint of endpoints) client.publish(`${prefix}users/endpoints/${endpoint}`, event, { qos });
});
