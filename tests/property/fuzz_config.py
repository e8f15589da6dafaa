"""Random configurations: each is taken whole, or refused with reasons that name settings and repeat no secret."""

import random
import tempfile
from collections import Counter
from pathlib import Path

from bridge.config import load_settings, rooms
from bridge.errors import ConfigError
from bridge.settings import Settings
from tests.property.found import Found
from tests.property.fuzz_inputs import CANARY

VALUES = (
    *("", "x", "0", "1", "-1", "1e400", "true", "[]", "{}", '["*"]', "a/{id}/b", "{organization}/", "+/#", "$x/{id}"),
    *("redis://:pw@h:1/0", "rediss://h", "unix://x", "127.0.0.1", "0.0.0.0", "\x00", "é" * 300, "none", "jwt", "bound"),
    *("users/endpoints/{endpoint}", "presence/users/{id}", "replies/", "/nowhere", "/dev/null", "HS256", '["RS256"]'),
)
SECRETS = ("mqtt.password", "mqtt.client_id", "redis.url", "auth.secret")


class Config:
    """Settings from a file, the environment and a secrets folder.

    Args:
        seed: of the dice.
        timed: takes no part here.

    Attributes:
        seen: how many were taken, refused at once, or refused when the rooms were made.
    """

    PROMISE = "no failure, no secret in a reason"
    slowest_seconds = 0.0
    slowest_number = 0

    def __init__(self, seed: int, *, timed: bool) -> None:
        self._seed = seed
        self.seen: Counter[str] = Counter()
        self._names = [
            f"{section}.{name}"
            for section, field in Settings.model_fields.items()
            for name in getattr(field.annotation, "model_fields", {})
        ] + ["name", "prefix", "default_organization", "registry_topics", "routes"]

    def case(self, number: int) -> None:
        """Try one.

        Raises:
            Found: it may not do that.
        """
        dice = random.Random(f"{self._seed}/{number}")
        with tempfile.TemporaryDirectory() as folder:
            place = Path(folder)
            self._try(dice, place)

    def _try(self, dice: random.Random, place: Path) -> None:
        given = {name: dice.choice(VALUES) for name in dice.sample(self._names, dice.choice((0, 0, 0, 1, 1, 2, 5)))}
        environment = {f"ENDPOINT_BRIDGE_{name.upper().replace('.', '__')}": value for name, value in given.items()}
        if dice.random() < 0.1:
            environment["ENDPOINT_BRIDGE_NO__SUCH"] = "x"
        secrets = place / "secrets"
        secrets.mkdir()
        for name in dice.sample(SECRETS, dice.choice((0, 1, 2))):
            (secrets / name).write_bytes(dice.choice((CANARY, f"{CANARY}://x:{CANARY}@h", CANARY * 40)).encode())
        if dice.random() < 0.05:
            (secrets / dice.choice(("nothing", "mqtt.host"))).write_bytes(dice.randbytes(9))
        file = place / "bridge.toml"
        file.write_bytes(_toml(dice, self._names))
        try:
            settings = load_settings(file, secrets, environment)
            self.seen["taken"] += 1
            rooms(settings)
            self.seen["made"] += 1
            shown = repr(settings)
        except ConfigError as error:
            self.seen["refused"] += 1
            shown = str(error)
        if CANARY in shown:
            raise Found(f"a secret is shown: {shown:.1000}")


def _toml(dice: random.Random, names: list[str]) -> bytes:
    lines = [
        f"{name} = {dice.choice(('1', 'true', '[]', repr(dice.choice(VALUES[:20])), '{}', 'nan', '1979-05-27'))}"
        for name in dice.sample(names, dice.choice((0, 0, 0, 1, 3)))
    ]
    if dice.random() < 0.1:
        lines.append(dice.choice(("[[routes]]\nevent = 'X'", "[mqtt", "= 1", "\x00", "[a.b.c]\nd = 1")))
    return "\n".join(lines).encode() + (dice.randbytes(3) if dice.random() < 0.03 else b"")
