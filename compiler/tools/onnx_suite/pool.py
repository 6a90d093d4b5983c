"""Runs each case in a process of its own, with limits of time and memory, so that no case ends the suite."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import selectors
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from . import execute
from .execute import Finding

Job = TypeVar("Job")


@dataclass(frozen=True)
class Limits:
    """Processor time in seconds, and memory in bytes beyond what a process starts with."""

    cpu_seconds: int
    memory_bytes: int

    @property
    def wall_seconds(self) -> int:
        """A process that sleeps uses no processor time; a busy machine slows every process down."""
        return 10 * self.cpu_seconds


@dataclass
class _Running(Generic[Job]):
    job: Job
    limits: Limits
    process: int
    pipe: int
    folder: Path
    begun: float
    read: bytes = b""


class Pool(Generic[Job]):
    """Forks a process for each job: ``work`` makes a finding of a job in a scratch folder."""

    # An exception raised by a signal handler is lost if the signal comes in a hook of fork().
    is_interrupted = False

    @classmethod
    def interrupt(cls, *_: object) -> None:
        """Ends ``run`` with KeyboardInterrupt; a signal handler."""
        cls.is_interrupted = True

    def __init__(
        self,
        work: Callable[[Job, Path], Finding],
        limits: Callable[[Job], Limits],
        workers: int,
    ) -> None:
        self._work, self._limits, self._workers = work, limits, workers

    def run(self, jobs: Iterable[Job]) -> Iterator[tuple[Job, Finding, float]]:
        """Jobs with their findings and seconds, in the order they end."""
        waiting = iter(jobs)
        running: dict[int, _Running[Job]] = {}
        with tempfile.TemporaryDirectory(prefix="onnx-suite-") as root:
            (Path(root) / "objects").mkdir()
            try:
                while True:
                    if self.is_interrupted:
                        raise KeyboardInterrupt
                    while len(running) < self._workers:
                        job = next(waiting, None)
                        if job is None:
                            break
                        started = self._start(job, Path(root), running)
                        running[started.pipe] = started
                    if not running:
                        return
                    for ended in self._ended(running):
                        del running[ended.pipe]
                        finding = self._reap(ended)
                        yield ended.job, finding, time.monotonic() - ended.begun
            finally:
                for left in running.values():
                    _kill(left.process)
                    os.waitpid(left.process, 0)

    def _start(self, job: Job, root: Path, others: dict[int, _Running[Job]]) -> _Running[Job]:
        folder = Path(tempfile.mkdtemp(dir=root))
        # Kernels of variants are often the same; the compiler keeps them by content.
        (folder / "objects").symlink_to(root / "objects")
        limits = self._limits(job)
        reading, writing = os.pipe()
        sys.stdout.flush()
        sys.stderr.flush()
        process = os.fork()
        if process == 0:
            for pipe in (reading, *others):
                os.close(pipe)
            self._child(job, folder, limits, writing)
        os.close(writing)
        return _Running(job, limits, process, reading, folder, time.monotonic())

    def _child(self, job: Job, folder: Path, limits: Limits, pipe: int) -> None:
        """Never returns."""
        try:
            os.setsid()
            log = os.open(folder / "log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(log, 1)
            os.dup2(log, 2)
            sys.stdout, sys.stderr = (os.fdopen(fd, "w", buffering=1) for fd in (1, 2))
            # Signals are for the parent, which ends its children.
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            resource.setrlimit(resource.RLIMIT_CPU, (limits.cpu_seconds, limits.cpu_seconds + 1))
            memory = _virtual_memory() + limits.memory_bytes
            resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
            try:
                finding = self._work(job, folder)
            except MemoryError:
                finding = Finding(execute.MEMORY, "the process ran out of memory")
            except BaseException as error:
                finding = Finding(execute.TRACEBACK, f"{type(error).__name__}: {error}")
            try:
                line = json.dumps(finding.as_dict())
            except TypeError as error:  # The harness, too, is told of errors in JSON.
                line = json.dumps(Finding(execute.TRACEBACK, f"{error}: {finding}").as_dict())
            os.write(pipe, line.encode() + b"\n")
        finally:
            os._exit(0)

    def _ended(self, running: dict[int, _Running[Job]]) -> list[_Running[Job]]:
        ended = []
        with selectors.DefaultSelector() as selector:
            for pipe in running:
                selector.register(pipe, selectors.EVENT_READ)
            for key, _ in selector.select(timeout=1):
                item = running[key.fd]
                piece = os.read(key.fd, 1 << 16)
                item.read += piece
                if not piece:
                    ended.append(item)
        for item in running.values():
            if item not in ended and time.monotonic() - item.begun > item.limits.wall_seconds:
                _kill(item.process)
        return ended

    def _reap(self, ended: _Running[Job]) -> Finding:
        os.close(ended.pipe)
        _kill(ended.process)  # It has ended, but a linker it started may be left.
        _, status, usage = os.wait4(ended.process, 0)
        try:
            printed = (ended.folder / "log").read_text(encoding="utf-8", errors="replace")
        except OSError:
            printed = ""
        shutil.rmtree(ended.folder, ignore_errors=True)
        finding = self._finding(ended, status, usage.ru_utime + usage.ru_stime, printed)
        if finding.finding == execute.RIGHT:
            line = execute.printed_traceback(printed)
            if line is not None:
                finding.finding, finding.message = execute.BROKEN_RULE, line
        return finding

    def _finding(self, ended: _Running[Job], status: int, seconds: float, printed: str) -> Finding:
        if ended.read.endswith(b"\n"):
            return Finding(**json.loads(ended.read))
        last = next((line for line in reversed(printed.splitlines()) if line.strip()), "")
        caught = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
        wall = time.monotonic() - ended.begun
        if caught in (signal.SIGXCPU, signal.SIGKILL) and (
            seconds >= ended.limits.cpu_seconds - 1 or wall > ended.limits.wall_seconds
        ):
            return Finding(
                execute.TIME,
                f"no result after {seconds:.0f} s of processor time, {wall:.0f} s in all",
            )
        if "bad_alloc" in printed or "MemoryError" in printed or caught == signal.SIGKILL:
            return Finding(execute.MEMORY, last[:300])
        name = signal.Signals(caught).name if caught else f"exit code {os.WEXITSTATUS(status)}"
        return Finding(execute.CRASH, f"{name}: {last[:300]}")


def _kill(process: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process, signal.SIGKILL)


def _virtual_memory() -> int:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    return pages * os.sysconf("SC_PAGE_SIZE")
