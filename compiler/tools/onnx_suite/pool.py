"""Runs cases in processes of their own, with limits of time and memory, so that no case ends the suite."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import resource
import selectors
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
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
        """Limit of elapsed time, for processes that sleep or run on a busy machine."""
        return 10 * self.cpu_seconds


@dataclass
class _Batch(Generic[Job]):
    """Jobs that one process works on, in order. ``jobs`` are those without a finding yet."""

    jobs: list[Job]
    process: int
    pipe: int
    folder: Path
    begun: float
    read: bytes = b""


class Pool(Generic[Job]):
    """Forks a process for each batch of jobs. ``work`` makes a finding of a job in a scratch folder.

    A process that exceeds the limits of a job, or crashes, loses that job only: the rest of its batch
    continues in a new process.
    """

    # An exception raised by a signal handler is lost if the signal arrives in a hook of fork().
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
        batch: int = 1,
    ) -> None:
        self._work, self._limits = work, limits
        self._workers, self._batch = workers, batch

    def run(self, jobs: Iterable[Job]) -> Iterator[tuple[Job, Finding, float]]:
        """Jobs with their findings and seconds, in the order they end."""
        waiting = iter(jobs)
        running: dict[int, _Batch[Job]] = {}
        with tempfile.TemporaryDirectory(prefix="onnx-suite-") as root:
            (Path(root) / "objects").mkdir()
            try:
                while True:
                    if self.is_interrupted:
                        raise KeyboardInterrupt
                    while len(running) < self._workers:
                        jobs_of_batch = list(itertools.islice(waiting, self._batch))
                        if not jobs_of_batch:
                            break
                        started = self._start(jobs_of_batch, Path(root), running)
                        running[started.pipe] = started
                    if not running:
                        return
                    for batch, has_ended in self._read(running):
                        yield from _findings(batch)
                        if has_ended:
                            del running[batch.pipe]
                            finding = self._reap(batch)
                            if batch.jobs:
                                seconds = time.monotonic() - batch.begun
                                yield batch.jobs.pop(0), finding, seconds
                                waiting = itertools.chain(batch.jobs, waiting)
            finally:
                for left in running.values():
                    _kill(left.process)
                    os.waitpid(left.process, 0)

    def _start(self, jobs: list[Job], root: Path, others: dict[int, _Batch[Job]]) -> _Batch[Job]:
        folder = Path(tempfile.mkdtemp(dir=root))
        reading, writing = os.pipe()
        sys.stdout.flush()
        sys.stderr.flush()
        process = os.fork()
        if process == 0:
            for pipe in (reading, *others):
                os.close(pipe)
            self._child(jobs, folder, writing)
        os.close(writing)
        return _Batch(jobs, process, reading, folder, time.monotonic())

    def _child(self, jobs: Sequence[Job], folder: Path, pipe: int) -> None:
        """Writes a line of JSON for each job. Never returns."""
        try:
            os.setsid()
            log = folder / "log"
            opened = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(opened, 1)
            os.dup2(opened, 2)
            sys.stdout, sys.stderr = (os.fdopen(fd, "w", buffering=1) for fd in (1, 2))
            # The parent handles signals and ends its children.
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            for number, job in enumerate(jobs):
                os.truncate(log, 0)
                scratch = folder / str(number)
                scratch.mkdir()
                # Variants share kernels, which the compiler caches by content.
                (scratch / "objects").symlink_to(folder.parent / "objects")
                _limit(self._limits(job))
                finding = self._finding(job, scratch)
                shutil.rmtree(scratch, ignore_errors=True)
                printed = execute.printed_traceback(_text(log))
                if finding.finding == execute.RIGHT and printed is not None:
                    finding.finding, finding.message = execute.BROKEN_RULE, printed
                try:
                    line = json.dumps(finding.as_dict())
                except (
                    TypeError
                ) as error:  # The compiler reports errors to the harness as JSON, too.
                    line = json.dumps(Finding(execute.TRACEBACK, f"{error}: {finding}").as_dict())
                os.write(pipe, line.encode() + b"\n")
        finally:
            os._exit(0)

    def _finding(self, job: Job, scratch: Path) -> Finding:
        try:
            return self._work(job, scratch)
        except MemoryError:
            return Finding(execute.MEMORY, "the process ran out of memory")
        except BaseException as error:
            return Finding(execute.TRACEBACK, f"{type(error).__name__}: {error}")

    def _read(self, running: dict[int, _Batch[Job]]) -> list[tuple[_Batch[Job], bool]]:
        """Batches that wrote something, and whether their process has ended."""
        heard = []
        with selectors.DefaultSelector() as selector:
            for pipe in running:
                selector.register(pipe, selectors.EVENT_READ)
            for key, _ in selector.select(timeout=1):
                batch = running[key.fd]
                piece = os.read(key.fd, 1 << 16)
                batch.read += piece
                heard.append((batch, not piece))
        silent = running.keys() - {batch.pipe for batch, _ in heard}
        for batch in (running[pipe] for pipe in silent):
            limit = self._limits(batch.jobs[0]).wall_seconds if batch.jobs else 10
            if time.monotonic() - batch.begun > limit:
                _kill(batch.process)
        return heard

    def _reap(self, ended: _Batch[Job]) -> Finding:
        """Waits for the process. The finding is that of the job at which it died, if there is one."""
        os.close(ended.pipe)
        _kill(ended.process)  # It has ended, but may have left a linker running.
        _, status, _ = os.wait4(ended.process, 0)
        printed = _text(ended.folder / "log")
        shutil.rmtree(ended.folder, ignore_errors=True)
        last = next((line for line in reversed(printed.splitlines()) if line.strip()), "")
        caught = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
        wall = time.monotonic() - ended.begun
        limits = self._limits(ended.jobs[0]) if ended.jobs else None
        if caught == signal.SIGXCPU:
            return Finding(execute.TIME, f"no result after its processor time, {wall:.0f} s in all")
        if caught == signal.SIGKILL and limits is not None and wall > limits.wall_seconds:
            return Finding(execute.TIME, f"no result after {wall:.0f} s")
        if "bad_alloc" in printed or "MemoryError" in printed or caught == signal.SIGKILL:
            return Finding(execute.MEMORY, last[:300])
        name = signal.Signals(caught).name if caught else f"exit code {os.WEXITSTATUS(status)}"
        return Finding(execute.CRASH, f"{name}: {last[:300]}")


def _findings(batch: _Batch[Job]) -> Iterator[tuple[Job, Finding, float]]:
    """Takes the jobs that have a finding out of the batch."""
    *lines, batch.read = batch.read.split(b"\n")
    for line in lines:
        now = time.monotonic()
        yield batch.jobs.pop(0), Finding(**json.loads(line)), now - batch.begun
        batch.begun = now


def _limit(limits: Limits) -> None:
    """Limits this process to what it has used so far and ``limits``."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    seconds = int(used.ru_utime + used.ru_stime) + 1 + limits.cpu_seconds
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, resource.RLIM_INFINITY))
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    memory = pages * os.sysconf("SC_PAGE_SIZE") + limits.memory_bytes
    resource.setrlimit(resource.RLIMIT_AS, (memory, resource.RLIM_INFINITY))


def _text(log: Path) -> str:
    try:
        return log.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _kill(process: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process, signal.SIGKILL)
