"""One stack for all faults; each leaves it working, and each has ids of its own."""

from collections.abc import Callable, Iterator
from itertools import count

import pytest

from tests.faults.load import Load
from tests.integration.stack import Stack, stack

_numbers = count(1)


@pytest.fixture(scope="session")
def torn(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Redis counts as away after one second, so that answers are lost when it is frozen for three."""
    with stack(tmp_path_factory.mktemp("faults"), durable=True, fsync="always", REDIS__TIMEOUT_SECONDS="1") as found:
        yield found


@pytest.fixture
def load(torn: Stack) -> Iterator[Callable[..., Load]]:
    loads: list[Load] = []
    if not torn.bridge.is_running:  # a test before this one failed halfway
        torn.bridge.start()

    def make(**options: bool | int) -> Load:
        made = Load(torn, f"f{next(_numbers)}", **options)  # type: ignore[arg-type]
        loads.append(made)
        return made

    yield make
    for made in loads:
        made.close()


@pytest.fixture
def figures(
    record_property: Callable[[str, object], None], request: pytest.FixtureRequest
) -> Callable[[dict[str, object]], None]:
    """Prints what a fault run saw; shown with ``-s`` or on failure."""

    def tell(found: dict[str, object]) -> None:
        print(f"\n{request.node.name}: {found}")
        for name, value in found.items():
            record_property(name, value)

    return tell
