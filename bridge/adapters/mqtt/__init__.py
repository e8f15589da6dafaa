"""MQTT 5: `session.Session` is the door; `connection` and `outbox` behind it are rules without sockets and clocks."""
