"""A peer of the bridge: aiomqtt and redis.asyncio, as their documentation shows them; one Lua call for each message.

Usage: aiomqtt_redis.py MQTT_PORT REDIS_PORT QOS PREFIX. One message after the other, which keeps their order. At QoS 1
a message is acknowledged when it is received.
"""

import asyncio
import sys
from pathlib import Path

import aiomqtt
from events import endpoint_keys, now_ms, status_event, user_of
from redis.asyncio import Redis


async def main(mqtt_port: int, redis_port: int, qos: int, prefix: str) -> None:
    """Serve until the process is ended."""
    redis = Redis(port=redis_port, decode_responses=True)
    keep_status = redis.register_script((Path(__file__).parent / "status.lua").read_text())
    async with aiomqtt.Client("127.0.0.1", mqtt_port, protocol=aiomqtt.ProtocolVersion.V5) as client:
        await client.subscribe(f"{prefix}presence/users/+/status", qos)
        async for message in client.messages:
            user, at_ms = user_of(str(message.topic)), now_ms()
            version, *endpoints = await keep_status(endpoint_keys(prefix, user), [message.payload, at_ms, user])
            event = status_event(user, message.payload, version, at_ms)
            for endpoint in endpoints:
                await client.publish(f"{prefix}users/endpoints/{endpoint}", event, qos)


asyncio.run(main(int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]))
