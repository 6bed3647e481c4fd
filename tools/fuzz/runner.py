"""Cases one after the other in a process that is watched, and started anew when it dies."""

from __future__ import annotations

import contextlib
import faulthandler
import json
import os
import random
import selectors
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from asr.errors import UserError

SECONDS, MEGABYTES = 10.0, 1000.0
HANGS_SECONDS = 60.0  # by the clock, in whole seconds; the machine may have other work
MOST_ADDRESSES = 16 << 30  # bytes of address space: a case must not take the machine's memory
LONGEST_MESSAGE = 20_000  # a name that the user gave may be long

# A target: it prepares what its cases share in an empty folder, and returns a function that makes a case in
# another empty folder, runs it and returns a word for what came out. What is wrong is raised.
RunCase = Callable[[random.Random, Path], str]
Target = Callable[[Path], RunCase]


@dataclass(frozen=True)
class Fault:
    """A case that did what no case may do."""

    number: int
    reason: str


@dataclass(frozen=True)
class Outcome:
    """What came of a case: ``kind`` is a word of its target, ``refused``, or the kind of a fault."""

    number: int
    kind: str
    reason: str = ""
    seconds: float = 0.0  # of processor time
    megabytes: float = 0.0  # of the process, at most

    def find_fault(self) -> Fault | None:
        """What is wrong with the outcome; ``None`` when nothing is."""
        if self.kind in ("traceback", "died", "hung", "unclear"):
            return Fault(self.number, f"{self.kind}: {self.reason}")
        if self.seconds > SECONDS:
            return Fault(self.number, f"took {self.seconds:.1f} seconds")
        if self.megabytes > MEGABYTES:
            return Fault(self.number, f"took {self.megabytes:.0f} MB")
        return None


# --- the process that watches ---------------------------------------------------------------------


def watch_cases(target: str, seed: int, numbers: range, folder: Path) -> Iterator[Outcome]:
    """Yield the outcome of each case of a target; ``folder`` is an empty one for the worker."""
    worker, errors, printed = None, folder / "errors", 0
    for number in numbers:
        if worker is None:
            worker = start_worker(target, folder)
        assert worker.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            worker.stdin.write(f"{seed} {number}\n")
            worker.stdin.flush()
        answer = read_answer(worker)
        new = errors.read_bytes()[printed:]
        printed, said = printed + len(new), new.decode(errors="replace")
        if answer and "Traceback" not in said:
            yield Outcome(**json.loads(answer))
        elif answer:  # of a callback in a library, which nobody can catch
            yield Outcome(number, "traceback", said.strip().splitlines()[-1])
        else:
            worker.kill()
            reason = f"status {worker.wait()} {' '.join(said.split())[:300]}"
            yield Outcome(number, "hung" if answer is None else "died", reason)
            worker = None
    if worker is not None:
        worker.kill()
        worker.wait()


def start_worker(target: str, folder: Path) -> subprocess.Popen[str]:
    """Start a process that runs cases by their seeds and numbers on its stdin; return when it is ready."""
    command = [sys.executable, "-m", "tools.fuzz", target, "--worker", str(folder)]
    with (folder / "errors").open("ab") as stderr:
        worker = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr, text=True, bufsize=1,
            cwd=Path(__file__).parents[2],
        )  # fmt: skip
    if read_answer(worker, 10 * HANGS_SECONDS) != "ready\n":
        raise SystemExit(f"the worker does not start: {(folder / 'errors').read_text()[-2000:]}")
    return worker


def read_answer(worker: subprocess.Popen[str], patience: float = HANGS_SECONDS) -> str | None:
    """Read the next line of a worker; empty when it has died, ``None`` when none comes in time."""
    assert worker.stdout is not None
    with selectors.DefaultSelector() as selector:
        selector.register(worker.stdout, selectors.EVENT_READ)
        for _ in range(round(patience)):  # while both are stopped, one of these seconds passes, not all
            if selector.select(1.0):
                return worker.stdout.readline()
    return None


# --- the process that is watched ------------------------------------------------------------------


def work(target: Target, name: str, folder: Path) -> None:
    """Run the worker: a seed and a number on each line of stdin, an outcome on each line of stdout."""
    faulthandler.enable()
    limit_memory()
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # whatever a library prints is no answer
    shared, place = folder / "shared", folder / "case"
    shutil.rmtree(shared, ignore_errors=True)
    shared.mkdir()
    run_case = target(shared)
    for number in range(3):  # what is loaded and compiled once is no part of a case
        with contextlib.suppress(UserError):
            run_in_empty_folder(run_case, random.Random(f"{name} warm {number}"), place)
    print("ready", file=answers)
    for line in sys.stdin:
        seed, number = map(int, line.split())
        forget_peak()
        began = time.process_time()
        kind, reason = "unclear", ""
        try:
            kind = run_in_empty_folder(run_case, random.Random(f"{name} {seed} {number}"), place)
        except UserError as error:
            reason = str(error)
            is_clear = reason.isprintable() and 0 < len(reason) <= LONGEST_MESSAGE
            kind = "refused" if is_clear else "unclear"
        except Exception as error:  # that there is none is what this tests
            kind, reason = "traceback", f"{type(error).__name__}: {error} at {find_place(error)}"
        seconds = time.process_time() - began
        outcome = Outcome(number, kind, reason[:300], seconds, measure_peak())
        print(json.dumps(asdict(outcome)), file=answers)


def run_in_empty_folder(run_case: RunCase, draw: random.Random, place: Path) -> str:
    """Run a case in an empty folder of its own."""
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    return run_case(draw, place)


def find_place(error: BaseException) -> str:
    """The last line of this project's code that an error came through."""
    place, step = "nowhere", error.__traceback__
    while step is not None:
        path = Path(step.tb_frame.f_code.co_filename)
        if "asr" in path.parts or "tools" in path.parts:
            place = f"{path.name}:{step.tb_lineno}"
        step = step.tb_next
    return place


def limit_memory() -> None:
    """Let this process have no more than ``MOST_ADDRESSES``, where the system has such limits."""
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MOST_ADDRESSES, MOST_ADDRESSES))


def forget_peak() -> None:
    """Reset this process's peak of memory (proc(5), clear_refs), where the system measures one."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def measure_peak() -> float:
    """Measure the peak in megabytes since ``forget_peak``, libraries included; 0 where nothing does."""
    status = Path("/proc/self/status")
    return int(status.read_text().partition("VmHWM:")[2].split()[0]) / 1e3 if status.exists() else 0.0
