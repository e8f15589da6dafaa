"""A world with rooms behind a token, called as HTTP calls them: bodies in, answers or numbers out."""

from typing import Any, NamedTuple

from bridge.domain.room_commands import DeleteRoom, ReadRoom, RoomCommand, Visitor
from bridge.domain.rules import Rules
from bridge.domain.token_room_codec import SessionToken, read_action, read_creation, visitor_of
from bridge.domain.token_rooms import RoomRefusal
from bridge.errors import Refusal
from tests.unit.world import World, told

NOBODY = Visitor()
SERVICE = Visitor(is_service=True)
STATUS = {
    "event": "Session.connectionCreated",
    "state": "waiting",
    "connections": 1,
    "sendStreams": 0,
    "recvStreams": 0,
}
WEEKS_SECONDS = 8 * 7 * 86_400


class Reply(NamedTuple):
    """What came of a call: its answer, or the number and the code of its refusal; and who was told what."""

    answer: Any
    errno: int | None
    code: str
    told: dict[str, list[Any]]


class TokenWorld(World):
    """One room ``R`` or more; ``tokens`` holds the session token of whoever joined last under a name."""

    def __init__(self, rules: Rules | None = None, **rest: Any) -> None:
        super().__init__(rules, **rest)
        self.tokens: dict[str, str] = {}
        self._made = 0

    def ask(self, command: RoomCommand) -> Reply:
        before = len(self.broker.outputs)
        caller = self.order(command)
        self.work()
        return self.replied(caller, before)

    def replied(self, caller: Any, before: int) -> Reply:
        assert not caller.is_open
        heard = told(self.broker.outputs[before:])
        if caller.refusal is None:
            return Reply(caller.told, None, "", heard)
        errno = caller.refusal.errno if isinstance(caller.refusal, RoomRefusal) else None
        return Reply(None, errno, caller.refusal.code, heard)

    def create(self, seats: object = 2, owner: str = "owner", room: str = "R", **fields: Any) -> Reply:
        return self.ask(read_creation({"maxSize": seats, **fields}, room, owner))

    def read(self, room: str = "R", visitor: Visitor = SERVICE) -> Reply:
        return self.ask(ReadRoom(room, visitor))

    def delete(self, visitor: Visitor, room: str = "R") -> Reply:
        return self.ask(DeleteRoom(room, visitor))

    def made(self) -> SessionToken:
        self._made += 1
        return SessionToken(f"c{self._made}", f"secret{self._made}")

    def act(self, action: str, visitor: Visitor = NOBODY, room: str = "R", **fields: Any) -> Reply:
        """One of the actions; what the codec refuses is a reply, too."""
        try:
            return self.ask(read_action({"action": action, **fields}, room, visitor, self.made()))
        except RoomRefusal as refusal:
            return Reply(None, refusal.errno, refusal.code, {})
        except Refusal as refusal:
            return Reply(None, None, refusal.code, {})

    def take(self, user: str = "", room: str = "R", size: object = 9, name: str = "", **fields: Any) -> Reply:
        """Join as a user, or as a guest called ``name``."""
        reply = self.act(
            "join", Visitor(user=user), room, displayName=name or user or "guest", clientMaxSize=size, **fields
        )
        if reply.answer is not None:
            made = SessionToken(reply.answer["roomConnectionId"], f"secret{self._made}")
            self.tokens[name or user or "guest"] = str(made)
        return reply

    def as_guest(self, name: str = "guest") -> Visitor:
        return visitor_of(self.tokens[name])

    def names(self, room: str = "R") -> list[str]:
        return [participant["displayName"] for participant in self.read(room).answer["participants"]]


def user(name: str) -> Visitor:
    return Visitor(user=name)
