"""Endpoint Bridge: presence, sessions and endpoints over MQTT. See docs/architecture.md for the tour of the house."""
