"""A client of a labgrid coordinator for one harness process: JSON lines in, JSON lines out.

Arguments: the coordinator as HOST:PORT, and the host and user that places are acquired under. They are
unique to the harness process, so `ReleasePlace` with `fromuser` frees what this process holds and nothing
else.

Each request has an `id`, and its answer has the same. Requests about a place name the `id` of the `acquire`
that got it. The end of the input means that the harness is gone: everything is released. The exit code is 0
if nothing is held any more.
"""

import asyncio
import contextlib
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Iterable
from enum import Enum
from typing import TextIO

import grpc
from labgrid.remote.common import Reservation, ReservationState
from labgrid.remote.generated import labgrid_coordinator_pb2 as pb
from labgrid_session import PATIENCE, Failed, Session, connect

# How often a reservation is polled; the coordinator drops one that is not polled for 60 s.
POLL = 1.0
# How often a lost coordinator is tried again.
RETRY = 1.0
# How long a place of a coordinator that was restarted waits for its exporter, which reconnects by itself.
EXPORTER = 60.0
# How long a place outlives its harness: programs on the board end 20 s after they lost it, and then restore
# the board's state.
RESTORE = 30.0


def own_stream(number: int, mode: str, replacement: int) -> TextIO:
    """Takes a standard stream away from drivers and the programs that they start."""
    stream = os.fdopen(os.dup(number), mode, encoding="utf-8")
    os.dup2(replacement, number)
    return stream


INPUT = own_stream(0, "r", os.open(os.devnull, os.O_RDONLY))
OUTPUT = own_stream(1, "w", 2)


def emit(event: dict) -> None:
    """Writes an event. If nobody reads any more, the end of the input follows."""
    with contextlib.suppress(OSError, ValueError):
        OUTPUT.write(json.dumps(event) + "\n")
        OUTPUT.flush()


class Place:
    """What one `acquire` asked for, and got."""

    def __init__(self) -> None:
        self.task: asyncio.Task | None = None
        self.tokens: set[str] = set()
        # Known before the place is acquired, so that it is released even if the answer never arrives.
        self.name: str | None = None
        self.is_held = False


class Client:
    """All places of this process."""

    def __init__(self, address: str, owner: str) -> None:
        self.address = address
        self.owner = owner
        self.session: Session | None = None
        self.places: dict[int, Place] = {}
        self.tasks: set[asyncio.Task] = set()
        self.connecting = asyncio.Lock()

    async def connected(self) -> Session:
        """The session; connects if there is none."""
        async with self.connecting:
            if self.session is None or self.session.stopping.is_set():
                if self.session is not None:
                    await self.session.end()
                self.session = await connect(self.address)
            return self.session

    async def synchronized(self) -> Session:
        """The session, when it has all that the coordinator knows now."""
        session = await self.connected()
        if not await session.sync_with_coordinator():
            session = await self.connected()
        return session

    async def call(self, name: str, request: object) -> object:
        """Calls the coordinator. A lost connection is restored, for each call once."""
        is_again = False
        while True:
            session = await self.connected()
            try:
                return await getattr(session.stub, name)(request, timeout=60.0)
            except grpc.aio.AioRpcError as error:
                reason = error.details() or str(error.code())
                lost = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
                if error.code() not in lost:
                    raise Failed("refused", reason) from error
                session.stopping.set()
                if is_again:
                    raise Failed("unreachable", reason) from error
                is_again = True

    # What the coordinator knows.

    async def reservations(self) -> list[Reservation]:
        """All reservations, the next one first."""
        answer = await self.call("GetReservations", pb.GetReservationsRequest())
        found = [Reservation.from_pb2(each) for each in answer.reservations]
        return sorted(found, key=lambda each: (-each.prio, each.created))

    # Requests.

    async def do_places(self, _: dict) -> dict:
        """Every place, free or not."""
        session = await self.synchronized()
        reservations = {each.token: each.owner for each in await self.reservations()}
        places = [
            {
                "name": name,
                "aliases": sorted(place.aliases),
                "tags": dict(place.tags),
                "comment": place.comment,
                "holder": place.acquired,
                "reserved_by": reservations.get(place.reservation),
                "changed_unix_s": place.changed,
                "service": session.service_or_none(name),
            }
            for name, place in sorted(session.places.items())
        ]
        return {"event": "places", "places": places}

    async def do_reap(self, request: dict) -> dict:
        """Frees what processes that are gone hold. Nobody else has their names."""
        owners = set(request["owners"])
        session = await self.synchronized()
        freed = []
        for reservation in await self.reservations():
            if reservation.owner in owners:
                await self.cancel(reservation.token)
        for name, place in sorted(session.places.items()):
            if place.acquired in owners:
                await self.call(
                    "ReleasePlace", pb.ReleasePlaceRequest(placename=name, fromuser=place.acquired)
                )
                freed.append(name)
        return {"event": "reaped", "places": freed}

    async def do_acquire(self, request: dict) -> dict:
        """Waits for a place and acquires it."""
        place = self.places[request["id"]] = Place()
        place.task = asyncio.current_task()
        try:
            event = await self.acquire(request, place)
        finally:
            place.task = None
        if not place.is_held:
            await self.do_release({"place": request["id"]})
        return event

    async def acquire(self, request: dict, place: Place) -> dict:
        """Gets a place that can be used. A coordinator that ends meanwhile is waited for."""
        session = await self.connected()
        wanted = session.without_alias(request["filter"])
        if not session.candidates(wanted):
            return {"event": "none", "places": sorted(session.places)}
        if request["only_if_free"]:
            everyone = await self.reservations()
            names = session.candidates(wanted)
            if all(
                session.places[name].acquired or session.places[name].reservation for name in names
            ):
                return {"event": "busy", "holders": self.holders(session, everyone, names)}
        grace = 0.0
        while True:
            try:
                return await self.acquire_one(request["id"], place, wanted, grace)
            except Failed as error:
                if error.kind != "unreachable" or request["only_if_free"]:
                    raise
            emit({"id": request["id"], "event": "coordinator_lost"})
            await self.reconnected()
            grace = time.monotonic() + EXPORTER

    async def acquire_one(
        self, request: int, place: Place, wanted: dict[str, str], grace: float
    ) -> dict:
        """Reserves places until one can be used. Until `grace`, exporters that are missing are waited for."""
        broken: dict[str, str] = {}
        while True:
            if broken and broken.keys() >= set((await self.connected()).candidates(wanted)):
                raise Failed(
                    "broken", "; ".join(f"{name}: {why}" for name, why in sorted(broken.items()))
                )
            name = await self.reserved(request, place, wanted)
            while (
                time.monotonic() < grace
                and name in (session := await self.connected()).places
                and session.service_or_none(name) is None
            ):
                await self.poll(place)
                await asyncio.sleep(POLL)
            session = await self.connected()
            if name not in session.places:
                # Its reservation is kept for now, so that the next one gets another place.
                broken[name] = "it was deleted"
                continue
            try:
                found = session.service(name)
            except Failed as error:
                broken[name] = str(error)
                continue
            place.name = name
            try:
                await self.call("AcquirePlace", pb.AcquirePlaceRequest(placename=name))
            except Failed as error:
                if error.kind != "refused":
                    raise
                # An answer that was lost with its connection may have been a consent.
                known = (await self.synchronized()).places.get(name)
                if known is None or known.acquired != self.owner:
                    broken[name] = str(error)
                    place.name = None
                    continue
            # Until now, this session may still know the place as free.
            await self.synchronized()
            place.is_held = True
            await self.cancel_all(place)
            return {"event": "acquired", "place": name, **found}

    async def poll(self, place: Place) -> None:
        """Keeps the reservations of a place."""
        for kept in sorted(place.tokens):
            with contextlib.suppress(Failed):
                await self.call("PollReservation", pb.PollReservationRequest(token=kept))

    async def reserved(self, request: int, place: Place, wanted: dict[str, str]) -> str:
        """Reserves a place with these tags, and waits for it in the queue."""
        token, shown, told = None, None, 0.0
        main = pb.Reservation.Filter(filter=wanted)
        while True:
            await self.poll(place)
            everyone = await self.reservations()
            mine = next((each for each in everyone if each.token == token), None)
            # A coordinator that was restarted knows no reservation any more.
            if mine is None or mine.state in (ReservationState.expired, ReservationState.invalid):
                place.tokens.discard(token)
                answer = await self.call(
                    "CreateReservation", pb.CreateReservationRequest(filters={"main": main})
                )
                mine = Reservation.from_pb2(answer.reservation)
                token = mine.token
                place.tokens.add(token)
                everyone = await self.reservations()
            if mine.allocations:
                return mine.allocations["main"][0]
            session = await self.connected()
            candidates = session.candidates(wanted)
            if not candidates:
                raise Failed("gone", "its places were deleted, or their tags have changed")
            state = (
                self.position(session, everyone, mine, candidates),
                self.holders(session, everyone, candidates),
            )
            if state != shown or time.monotonic() - told > 60.0:
                emit({"id": request, "event": "waiting", "position": state[0], "holders": state[1]})
                shown, told = state, time.monotonic()
            await asyncio.sleep(POLL)

    def position(
        self, session: Session, everyone: list, mine: Reservation, candidates: list[str]
    ) -> int:
        """Place in the queue, from 1: others that wait longer, and for one of the same places."""
        position = 1
        for other in everyone:
            if other.token == mine.token:
                break
            waits = other.state is ReservationState.waiting
            theirs = session.candidates(other.filters.get("main", {}))
            if waits and set(theirs) & set(candidates):
                position += 1
        return position

    def holders(self, session: Session, everyone: list, candidates: list[str]) -> list[str]:
        """Who has the places now."""
        owners = {each.token: each.owner for each in everyone}
        holders = []
        for name in candidates:
            held = session.places[name]
            by = held.acquired or (
                held.reservation and f"a reservation of {owners.get(held.reservation, 'somebody')}"
            )
            holders.append(f"{name} by {by}" if by else f"{name} by nobody")
        return holders

    async def do_release(self, request: dict) -> dict:
        """Gives back a place, or leaves the queue."""
        place = self.places.get(request["place"])
        if place is None:
            return {"event": "released"}
        if place.task is not None:
            place.task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await place.task
            # A reservation whose answer had not arrived yet.
            for reservation in await self.reservations():
                if reservation.owner == self.owner and not any(
                    reservation.token in other.tokens for other in self.places.values()
                ):
                    place.tokens.add(reservation.token)
        place.is_held = False
        if place.name is not None:
            release = pb.ReleasePlaceRequest(placename=place.name, fromuser=self.owner)
            with (
                contextlib.suppress(Failed)
                if await self.is_deleted(place.name)
                else contextlib.nullcontext()
            ):
                await self.call("ReleasePlace", release)
            place.name = None
        await self.cancel_all(place)
        self.places.pop(request["place"], None)
        return {"event": "released"}

    async def is_deleted(self, name: str) -> bool:
        """Whether there is no such place any more."""
        return name not in (await self.connected()).places

    async def cancel_all(self, place: Place) -> None:
        """Cancels the reservations of a place."""
        while place.tokens:
            await self.cancel(next(iter(place.tokens)))
            place.tokens.pop()

    async def cancel(self, token: str) -> None:
        """Cancels a reservation, which may have expired."""
        try:
            await self.call("CancelReservation", pb.CancelReservationRequest(token=token))
        except Failed as error:
            if error.kind != "refused":
                raise

    async def do_power_cycle(self, request: dict) -> dict:
        """Cuts and restores the power of a place by the labgrid driver that fits its resources."""
        place = self.places[request["place"]]
        try:
            session = await self.connected()
        except Failed as error:
            reason = (
                f"the labgrid coordinator, which knows its power port, does not answer: {error}"
            )
            raise Failed("power", reason) from error
        await session.power_cycle(place.name, request["environment"])
        return {"event": "cycled"}

    # Watching.

    async def watch(self) -> None:
        """Tells when a place is taken away, and holds places again after the coordinator was restarted."""
        while True:
            session = self.session
            if session is None:
                await asyncio.sleep(POLL)
                continue
            await session.changed.wait()
            session.changed.clear()
            if session.stopping.is_set():
                await self.return_to_coordinator()
                continue
            for number, place in list(self.places.items()):
                if place.is_held:
                    known = session.places.get(place.name)
                    if known is None or known.acquired != self.owner:
                        self.lose(number, place, known)

    def lose(self, number: int, place: Place, known: object) -> None:
        """The place is no longer ours."""
        by = None if known is None else known.acquired
        emit({"id": number, "event": "lost", "by": by, "is_deleted": known is None})
        place.name, place.is_held = None, False

    async def return_to_coordinator(self) -> None:
        """Connects again, however long it takes."""
        held = {number: place for number, place in self.places.items() if place.is_held}
        for number in held:
            emit({"id": number, "event": "coordinator_lost"})
        session = await self.reconnected()
        for number, place in held.items():
            if not place.is_held:
                continue
            known = session.places.get(place.name)
            if known is not None and known.acquired == self.owner:
                emit({"id": number, "event": "coordinator_back", "acquired_again": False})
            elif known is None or known.acquired or not await self.acquire_again(place):
                self.lose(number, place, session.places.get(place.name))
            else:
                emit({"id": number, "event": "coordinator_back", "acquired_again": True})
        session.changed.set()

    async def reconnected(self) -> Session:
        """Connects, however long it takes."""
        while True:
            try:
                return await self.connected()
            except Failed:
                await asyncio.sleep(RETRY)

    async def acquire_again(self, place: Place) -> bool:
        """A coordinator that was restarted has forgotten who holds what. A reservation keeps others away
        until the exporter is back, without which the place would be acquired without its resources.
        """
        deadline = time.monotonic() + EXPORTER
        try:
            main = pb.Reservation.Filter(filter={"name": place.name})
            answer = await self.call(
                "CreateReservation", pb.CreateReservationRequest(filters={"main": main})
            )
            token = answer.reservation.token
            place.tokens.add(token)
            if not answer.reservation.allocations:
                await self.cancel_all(place)
                return False
            while time.monotonic() < deadline:
                session = await self.connected()
                if place.name in session.places and session.service_or_none(place.name):
                    break
                await self.call("PollReservation", pb.PollReservationRequest(token=token))
                await asyncio.sleep(POLL)
            await self.call("AcquirePlace", pb.AcquirePlaceRequest(placename=place.name))
            await self.synchronized()
            await self.cancel_all(place)
        except Failed:
            return False
        return True

    # The input.

    async def answer(self, request: dict) -> None:
        """Carries out a request."""
        try:
            event = await getattr(self, f"do_{request['do']}")(request)
        except Failed as error:
            event = {"event": "failed", "kind": error.kind, "reason": str(error)}
        except asyncio.CancelledError:
            event = {"event": "failed", "kind": "cancelled", "reason": "it was cancelled"}
        except Exception as error:
            event = {"event": "failed", "kind": "bug", "reason": f"{type(error).__name__}: {error}"}
        emit({"id": request["id"], **event})

    async def run(self, requests: asyncio.Queue) -> int:
        """Carries out requests until the input ends, then releases everything. Returns the exit code."""
        watch = asyncio.create_task(self.watch())
        while isinstance(request := await requests.get(), dict):
            task = asyncio.create_task(self.answer(request))
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)
        watch.cancel()
        held = [number for number, place in self.places.items() if place.is_held]
        if held and request is End.HARNESS:
            # It was killed, or it would have given them back. What waits in a queue need not wait with them.
            await self.release_all(number for number in list(self.places) if number not in held)
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(requests.get(), RESTORE)
        elif request is End.SIGNAL:
            # The harness may live on, and must not use them any more.
            for number in held:
                emit({"id": number, "event": "lost", "by": None, "is_deleted": False})
        is_free = await self.release_all(list(self.places))
        if self.session is not None:
            await self.session.end()
        return 0 if is_free else 1

    async def release_all(self, numbers: Iterable[int]) -> bool:
        """Gives back places; whether none is held any more."""
        is_free = True
        for number in numbers:
            try:
                await asyncio.wait_for(self.do_release({"place": number}), 2 * PATIENCE)
            except (Failed, asyncio.TimeoutError) as error:
                print(f"failed to release a place: {error}", file=sys.stderr)
                is_free = False
        return is_free


class End(Enum):
    """Why no more requests come."""

    HARNESS = "its input ended"
    SIGNAL = "it got SIGTERM"


async def main(address: str, host: str, user: str) -> int:
    """Reads requests in a thread, because files cannot be awaited."""
    os.environ.update(LG_HOSTNAME=host, LG_USERNAME=user)
    loop = asyncio.get_running_loop()
    requests: asyncio.Queue = asyncio.Queue()
    # Ctrl-C is for the harness, which then ends this program's input.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    loop.add_signal_handler(signal.SIGTERM, requests.put_nowait, End.SIGNAL)

    def read() -> None:
        for line in INPUT:
            loop.call_soon_threadsafe(requests.put_nowait, json.loads(line))
        loop.call_soon_threadsafe(requests.put_nowait, End.HARNESS)

    threading.Thread(target=read, daemon=True).start()
    return await Client(address, f"{host}/{user}").run(requests)


if __name__ == "__main__":
    code = asyncio.run(main(*sys.argv[1:]))
    # The thread that reads may still hold the lock of the input, which the interpreter would wait for.
    os._exit(code)
