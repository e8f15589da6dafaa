"""The load bench: what ``scripts/bench`` starts, measures and prints.

Every figure is a ratio to a null relay in C (``c_relay.c``: no parsing, no registry) over the same broker in the same
round, since two rounds on a shared machine differ by a third and their ratios hardly. ``loadgen.c`` makes the load.
"""
