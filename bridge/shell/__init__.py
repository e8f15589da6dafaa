"""The commands that look after a running bridge: guests at its broker, a room per noun. `bridge.cli` is their door."""
