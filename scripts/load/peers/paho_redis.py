"""A peer of the bridge: paho-mqtt and redis-py, as their documentation shows them; a transaction for each message.

Usage: paho_redis.py MQTT_PORT REDIS_PORT QOS PREFIX. At QoS 1 paho acknowledges a message when the callback returns.
"""

import sys

import paho.mqtt.client as mqtt
from events import endpoint_keys, now_ms, status_event, user_of
from paho.mqtt.enums import CallbackAPIVersion
from redis import Redis

mqtt_port, redis_port, qos, prefix = int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
redis = Redis(port=redis_port, decode_responses=True)


def on_connect(client: mqtt.Client, *_: object) -> None:
    """Subscribe, on each connection anew."""
    client.subscribe(f"{prefix}presence/users/+/status", qos)


def on_message(client: mqtt.Client, _: object, message: mqtt.MQTTMessage) -> None:
    """Keep the status, and tell the user's endpoints."""
    user, at_ms = user_of(message.topic), now_ms()
    record, endpoints, heard = endpoint_keys(prefix, user)
    pipeline = redis.pipeline(transaction=True)
    pipeline.hset(record, mapping={"status": message.payload, "status_ms": at_ms})
    pipeline.zadd(heard, {user: at_ms})
    pipeline.hincrby(record, "version", 1)
    pipeline.smembers(endpoints)
    *_rest, version, found = pipeline.execute()
    event = status_event(user, message.payload, version, at_ms)
    for endpoint in found:
        client.publish(f"{prefix}users/endpoints/{endpoint}", event, qos)


client = mqtt.Client(CallbackAPIVersion.VERSION2, protocol=mqtt.MQTTv5)
client.max_inflight_messages_set(1000)
client.on_connect = on_connect
client.on_message = on_message
client.connect("127.0.0.1", mqtt_port)
client.loop_forever()
