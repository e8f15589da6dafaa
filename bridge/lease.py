"""The lease: of the bridges beside one broker and one Redis one is active, the others stand by (DESIGN 6).

The active one renews it twice a second. A standby takes it when it has run out, 2 s after the active bridge was killed,
frozen or cut off from Redis, or at once when it is given back. Each new holder has a higher epoch and shuts the lower
ones out of every organization first, so that a bridge that wakes up late can change nothing.
"""

import asyncio

import structlog

from bridge.errors import LeaseLost, RegistryUnavailable
from bridge.ports import Registry

log = structlog.get_logger("bridge.lease")

LASTS_MS = 2_000
RENEW_SECONDS = 0.5
ASK_SECONDS = 0.25


class Lease:
    """One bridge's claim to be the active one.

    Args:
        registry: keeps it.
        bridge: ``<name>/<instance>``, as the registry knows this bridge.
    """

    def __init__(self, registry: Registry, bridge: str) -> None:
        self._registry = registry
        self._bridge = bridge
        self._epoch = 0

    async def take(self, *, starting: bool) -> None:
        """Return once this bridge is the active one and every earlier one is shut out.

        Args:
            starting: the process has just begun. Then a holder of the same name is an earlier run of it, which is
                gone or will be shut out: there is nothing to wait for.

        Raises:
            RegistryUnavailable: Redis is away.
        """
        namesake, told = "", ""
        while True:
            hold = await self._registry.hold(LASTS_MS, instead_of=namesake)
            while hold.bridge == self._bridge:
                self._epoch = hold.epoch
                highest = await self._registry.fence(hold.epoch)
                if highest <= hold.epoch:
                    return
                # Redis came back from an older copy, and forgot how far the epochs were.
                hold = await self._registry.hold(LASTS_MS, least_epoch=highest + 1)
            if starting and not namesake and _name(hold.bridge) == _name(self._bridge):
                namesake = hold.bridge
                continue
            if hold.bridge != told:
                told = hold.bridge
                log.info("Standing by: another bridge is the active one.", active=told)
            await asyncio.sleep(ASK_SECONDS)

    async def keep(self) -> None:
        """Renew it for ever.

        Raises:
            LeaseLost: another bridge has taken it.
        """
        while True:
            await asyncio.sleep(RENEW_SECONDS)
            try:
                await self._renew()
            except RegistryUnavailable:
                continue  # nothing can be changed meanwhile, and nobody else can take it

    async def confirm(self) -> None:
        """Return once Redis has said that this bridge still is the active one.

        Raises:
            LeaseLost: it is not.
        """
        while True:
            try:
                return await self._renew()
            except RegistryUnavailable:
                await asyncio.sleep(ASK_SECONDS)

    async def release(self) -> None:
        """Give it back, so that a standby need not wait for its end.

        Raises:
            RegistryUnavailable: Redis is away; it ends by itself.
        """
        await self._registry.hold(0)

    async def _renew(self) -> None:
        hold = await self._registry.hold(LASTS_MS)
        if (hold.bridge, hold.epoch) != (self._bridge, self._epoch):
            raise LeaseLost(f"{hold.bridge} is the active bridge now")


def _name(bridge: str) -> str:
    return bridge.rpartition("/")[0]
