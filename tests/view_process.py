"""``cube-denoise view`` in a process of its own, as a user has it."""

import signal
import subprocess
import sys
import time
from types import SimpleNamespace


def running(*arguments: object) -> SimpleNamespace:
    """Start it, and wait until it says its address.

    Give what this returns to `ended`.
    """
    command = [sys.executable, "-m", "cube_denoise", "view", *map(str, arguments)]
    process = subprocess.Popen(
        [*command, "--no-browser"], stderr=subprocess.PIPE, text=True, cwd="/"
    )
    said = ""
    while " shows " not in said:
        line = process.stderr.readline()
        assert line, f"it ended: {said}"
        said += line
    address = next(word for word in said.split() if word.startswith("http"))
    return SimpleNamespace(process=process, address=address)


def ended(page: SimpleNamespace, number: int = signal.SIGINT) -> str:
    """Signal it; what it still says before it ends, cleanly and soon."""
    begun = time.monotonic()
    page.process.send_signal(number)
    _, said = page.process.communicate(timeout=30)
    assert page.process.returncode == 0, said
    assert time.monotonic() - begun < 20
    assert "Traceback" not in said, said
    return said
