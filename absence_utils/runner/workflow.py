"""Run Snakemake for `make figures`: one run at a time in a checkout, and nothing goes on after it, however it ends.

`python -m absence_utils.runner.workflow PARENT PROFILE JOBS [name=value ...]`, in the checkout. PARENT is the id of
the process that starts it; what follows goes to --config.
"""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
from pathlib import Path

from absence_utils.processes import end_with

from . import run

LOCK = Path("results/.lock")
PARENT = "ABSENCE_WORKFLOW"  # tells the Snakefile which process it ends with


def main(arguments: list[str]) -> int:
    """Run the notebooks and list what they made; returns Snakemake's exit status, 1 where another run is under way."""
    profile, jobs, *config = arguments
    LOCK.parent.mkdir(exist_ok=True)
    with LOCK.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("error: another run is under way in this folder", file=sys.stderr)
            return 1
        words = ["--config", f"profile={profile}", *config]
        # Whoever has our lock may remove the one that a killed Snakemake left behind.
        unlocked = _snakemake("--unlock", *words, lock=lock) if any(Path(".snakemake/locks").glob("*")) else 0
        status = unlocked or _snakemake("--cores", jobs, *words, lock=lock)
    run.main(["--list", "--profile", profile])
    return status


def _snakemake(*words: str, lock) -> int:
    """Run Snakemake in a session of its own, and pass on to it and to its jobs what would end this process."""
    command = [str(Path(sys.executable).with_name("snakemake")), "--profile", "cluster/local", *words]
    environment = os.environ | {PARENT: str(os.getpid())}
    # It inherits the lock: no other run may begin before it has ended, even if this process was killed.
    process = subprocess.Popen(command, env=environment, start_new_session=True, pass_fds=[lock.fileno()])

    def pass_on(*_):
        try:
            os.killpg(process.pid, signal.SIGTERM)
        except ProcessLookupError:
            pass

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, pass_on)
    return process.wait()


if __name__ == "__main__":
    end_with(int(sys.argv[1]), lambda: os.kill(os.getpid(), signal.SIGTERM))
    sys.exit(main(sys.argv[2:]))
