"""Claims on frames: one holder at a time, and the dead let go."""

import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from cube_denoise import frame_status, processes
from cube_denoise.frame_status import Claim, FrameStatus, claim
from cube_denoise.json_objects import ObjectChangedError
from cube_denoise.processes import Process


def test_a_claim_holds_while_its_process_lives(tmp_path: Path) -> None:
    url = str(tmp_path)
    first = claim(url, "one", job="x")
    assert isinstance(first, Claim)
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=-1) as child:
        first._tell(
            worker=Process(processes.host(), child.pid, processes.born(child.pid))
        )
        held = claim(url, "one", job="x")
        assert isinstance(held, FrameStatus) and held.state == "running"
        child.kill()
        child.wait()
    second = claim(url, "one", job="x")
    assert isinstance(second, Claim)
    with pytest.raises(ObjectChangedError):
        first.end("done")
    assert first.lost
    with pytest.raises(ObjectChangedError, match="taken over"):
        first.listen("invert", 1, 2)
    assert second.end("done").state == "done"
    known = claim(url, "one", job="x")
    assert isinstance(known, FrameStatus) and known.state == "done"
    assert isinstance(claim(url, "one", job="y"), Claim), "something else is asked"


def test_a_claim_of_another_host_dies_in_silence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(frame_status, "BEAT", 0.02)
    url = str(tmp_path)
    first = claim(url, "one", job="x")
    assert isinstance(first, Claim)
    first._tell(worker=Process("elsewhere", 1, 1))
    seen = claim(url, "one", job="x")
    assert isinstance(seen, FrameStatus) and not seen.is_dead()
    with first.kept():
        time.sleep(0.3)
    later = claim(url, "one", job="x", silent=seen.mark)
    assert isinstance(later, FrameStatus), "it has given a sign meanwhile"
    assert later.beat > seen.beat
    taken = claim(url, "one", job="x", silent=later.mark)
    assert isinstance(taken, Claim) and taken.status.deaths == 1


def test_many_claim_and_one_gets_it(tmp_path: Path) -> None:
    got: list[Claim | FrameStatus] = []
    threads = [
        threading.Thread(
            target=lambda: got.append(claim(str(tmp_path), "one", job="x"))
        )
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(isinstance(g, Claim) for g in got) == 1
