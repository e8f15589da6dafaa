"""The rules: pure functions of (command, state, now). Nothing here waits, reads a clock, rolls dice or logs."""
