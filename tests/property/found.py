"""What a fuzz run looks for."""


class Found(Exception):
    """A case that did what none may do; says what."""
