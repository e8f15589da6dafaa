"""The load bench: what ``scripts/bench`` starts, measures and prints.

Each work is a module with a `measure`: a plan in, tables and verdicts out (`work.py`). Most are ratios to a null relay
in C (``c_relay.c``: no parsing, no registry) over the same broker in the same round (`rounds.py`), since two rounds on
a shared machine differ by a third and their ratios hardly. ``loadgen.c`` makes the load, `stand.py` the servers,
`house.py` fills registries.
"""
