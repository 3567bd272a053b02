"""Processes end with the one that started them, also when it is killed."""

import contextlib
import os
import signal
import subprocess
import sys

PARENT = """
import os, sys
from concurrent.futures import ProcessPoolExecutor
import multiprocessing
from absence_utils.processes import end_with

def pid(_):
    return os.getpid()

if __name__ == "__main__":
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(2, context, initializer=end_with, initargs=(os.getpid(),)) as pool:
        print(*set(pool.map(pid, range(8))), flush=True)
        sys.stdin.read()
"""
PATIENCE = 60  # s until a process that should have ended counts as one that goes on


def test_workers_of_a_killed_process_end(tmp_path):
    """They hold its output open: it ends when the last of them has."""
    (tmp_path / "parent.py").write_text(PARENT)
    pipe = subprocess.PIPE
    command = [sys.executable, tmp_path / "parent.py"]
    parent = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, start_new_session=True)
    workers = list(map(int, parent.stdout.readline().split()))
    os.kill(workers[0], 0)
    parent.send_signal(signal.SIGKILL)
    try:
        assert parent.communicate(timeout=PATIENCE)[0] == b"" and parent.returncode == -signal.SIGKILL
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(parent.pid, signal.SIGKILL)


def test_who_is_no_child_of_it_ends_at_once():
    code = "from absence_utils.processes import end_with\nend_with(1234567)\nimport time\nwhile True: time.sleep(1)"
    assert subprocess.run([sys.executable, "-c", code], timeout=PATIENCE).returncode == 1
