"""One outside thing each: the broker, the registry, the clock. No rules live here."""
