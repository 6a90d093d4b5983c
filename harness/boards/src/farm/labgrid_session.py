"""labgrid's session with a coordinator: what it knows of places, and its power drivers."""

import argparse
import asyncio
import contextlib
import copy
import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path

from labgrid import Environment
from labgrid.remote.client import ClientSession, Error, find_role_by_place
from labgrid.remote.generated import labgrid_coordinator_pb2 as pb

# Longest time for the coordinator to answer.
PATIENCE = 10.0
# Longest time for a power driver. Some of them talk to switches without any limit of their own.
POWER = 100.0


class Failed(Exception):
    """A request failed. `kind` decides what the harness makes of it."""

    def __init__(self, kind: str, reason: str) -> None:
        super().__init__(reason)
        self.kind = kind


class Session(ClientSession):
    """A session that tells when a place or the connection changes."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)
        self.changed = asyncio.Event()

    async def on_place_changed(self, place_pb2: pb.Place) -> None:
        """Is called for each place at first, and then after each change."""
        await super().on_place_changed(place_pb2)
        self.changed.set()

    async def on_place_deleted(self, name: str) -> None:
        """Is called when an administrator deletes a place."""
        await super().on_place_deleted(name)
        self.changed.set()

    async def message_pump(self) -> None:
        """Runs until the connection is lost."""
        try:
            await super().message_pump()
        finally:
            # Also if it is cancelled: `watch` waits for the session that it knows.
            self.changed.set()

    async def end(self) -> None:
        """Closes the connection in whatever state it is."""
        self.stopping.set()
        with contextlib.suppress(Exception):
            await asyncio.wait_for(self.stop(), PATIENCE)
        with contextlib.suppress(Exception):
            await self.close()

    def service(self, name: str) -> dict:
        """Address, user and port of a place: its NetworkService. Fails if there is none, or more than one."""
        place = self.places[name]
        found = {}
        for exporter, groups in sorted(self.resources.items()):
            for group, resources in sorted(groups.items()):
                for resource, entry in sorted(resources.items()):
                    # The data of a resource that is gone is empty.
                    if entry.data.get("cls") != "NetworkService" or not entry.avail:
                        continue
                    if place.hasmatch((exporter, group, entry.cls, resource)):
                        found[f"{exporter}/{group}/{entry.cls}/{resource}"] = entry.args
        if not found:
            raise Failed("broken", "it has no NetworkService; is its exporter running?")
        if len(found) > 1:
            raise Failed(
                "broken",
                f"it has several NetworkServices ({', '.join(found)}); keep the match of one of them with "
                f"`labgrid-client -p {name} del-match`",
            )
        # The exporter has checked its types.
        [values] = found.values()
        return {
            "address": values["address"],
            "username": values["username"],
            "port": values.get("port", 22),
        }

    def service_or_none(self, name: str) -> dict | None:
        """The same for a place that may be without one."""
        with contextlib.suppress(Failed):
            return self.service(name)
        return None

    def candidates(self, wanted: dict[str, str]) -> list[str]:
        """The places that have these tags. Each has its name as the tag `name`, as for labgrid itself."""
        named = self.places.items()
        return sorted(
            name for name, place in named if wanted.items() <= {**place.tags, "name": name}.items()
        )

    def without_alias(self, wanted: dict[str, str]) -> dict[str, str]:
        """labgrid's client takes an alias for a place's name, and the coordinator does not."""
        name = wanted.get("name")
        if name is None or name in self.places:
            return wanted
        found = [known for known, place in self.places.items() if name in place.aliases]
        return {**wanted, "name": found[0]} if len(found) == 1 else wanted

    async def power_cycle(self, place: str, environment: str | None) -> None:
        """Cuts and restores the power of a place by the driver that labgrid's client would take: that of the
        environment file, if there is one, or the one that fits the place's power port.
        """
        # A copy, because several places may be power-cycled at the same time.
        session = copy.copy(self)
        session.args = argparse.Namespace(
            place=place, action="cycle", delay=None, name=None, state=None, initial_state=None
        )
        try:
            if environment is not None:
                session.env = Environment(str(Path(environment).expanduser()))
                if find_role_by_place(session.env.config.get_targets(), place) is None:
                    reason = f"{environment} has no target with `RemotePlace: {{ name: {place} }}`"
                    raise Failed("power", reason)
            await asyncio.wait_for(in_thread(session.power), POWER)
        except Failed:
            raise
        except (TimeoutError, asyncio.TimeoutError) as error:
            raise Failed("power", f"its power driver did not end within {POWER:.0f} s") from error
        except Error as error:
            reason = " ".join(map(str, error.args))
            if "no compatible resource" in reason:
                reason = (
                    "it has no power port that labgrid's client drives by itself, or the exporter of its "
                    f"power port is not running; `labgrid-client -p {place} show` lists its resources"
                )
            raise Failed("power", reason) from error
        except Exception as error:
            # Each driver has errors of its own.
            raise Failed("power", f"{type(error).__name__}: {error}") from error


async def connect(address: str) -> Session:
    """Connects to the coordinator. A plain connection comes first, because gRPC does not name the reason."""
    host, _, port = address.rpartition(":")
    try:
        _, writer = await asyncio.wait_for(
            asyncio.open_connection(host.strip("[]"), int(port)), PATIENCE
        )
        writer.close()
    except (TimeoutError, asyncio.TimeoutError) as error:  # Two classes in Python 3.10.
        raise Failed("unreachable", f"no answer within {PATIENCE:.0f} s") from error
    except OSError as error:
        known = error.errno and not isinstance(error, socket.gaierror)
        raise Failed(
            "unreachable", os.strerror(error.errno) if known else str(error.strerror or error)
        ) from error
    session = Session(address, asyncio.get_running_loop())
    try:
        await asyncio.wait_for(session.start(), PATIENCE)
    except (Error, asyncio.TimeoutError) as error:
        await session.end()
        raise Failed("foreign", "it does not speak the protocol of labgrid 25 or newer") from error
    return session


async def in_thread(act: Callable[[], None]) -> None:
    """Runs what blocks. It is not waited for when this program ends, unlike a thread of asyncio's own."""
    loop = asyncio.get_running_loop()
    done = loop.create_future()

    def settle(error: BaseException | None) -> None:
        if done.done():
            return
        if error is None:
            done.set_result(None)
        else:
            done.set_exception(error)

    def run() -> None:
        error = None
        try:
            act()
        except Exception as raised:
            error = raised
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(settle, error)

    threading.Thread(target=run, daemon=True).start()
    await done
