"""Where an interrupted run goes on: a hidden folder beside the model folder."""

import csv
import io
import json
import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch


class CurvePoint(NamedTuple):
    """A row of ``curves.csv``."""

    step: int
    """Steps taken."""
    seconds: float
    """Of work so far, of all runs that were interrupted too."""
    learning_rate: float
    """Of the next step."""
    training_loss: float
    """Mean over the steps since the row before."""
    held_out_loss: float
    """Of the averaged weights, on batches of the validation split."""


def as_csv(curve: Iterable[CurvePoint]) -> str:
    """Rows as text, with a header."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(CurvePoint._fields)
    writer.writerows(
        (p.step, f"{p.seconds:.1f}", *(f"{v:.6g}" for v in p[2:])) for p in curve
    )
    return text.getvalue()


class Checkpoint:
    """State of one run on disk, replaced whole: a kill at any moment leaves one.

    Parameters
    ----------
    out : pathlib.Path
        Model folder that the run will write.
    identity : mapping
        JSON-able: what the state belongs to. One of another identity is not read.
    """

    def __init__(self, out: Path, identity: Mapping[str, Any]) -> None:
        self.folder = out.with_name(f".{out.name}-{identity['seed']}.training")
        self.identity = json.dumps(identity, sort_keys=True)

    def read(self) -> dict[str, Any] | None:
        """Return the state of an interrupted run of this identity, if there is one."""
        path = self.folder / "checkpoint.pt"
        if not path.is_file():
            return None
        # Numbers, text and tensors alone: no code is run.
        state = torch.load(path, map_location="cpu", weights_only=True)
        if state.pop("identity") != self.identity:
            return None
        return dict(state)

    def write(self, state: dict[str, Any], curve: Iterable[CurvePoint]) -> None:
        """Keep a state of tensors and numbers, and the curve beside it as CSV."""
        self.folder.mkdir(parents=True, exist_ok=True)
        data = io.BytesIO()
        torch.save({"identity": self.identity, **state}, data)
        self._replace("checkpoint.pt", data.getbuffer())
        self._replace("curves.csv", as_csv(curve).encode())

    def remove(self) -> None:
        """Leave nothing, the model folder being written."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _replace(self, name: str, data: "bytes | memoryview") -> None:
        new = self.folder / f"{name}.new"
        with new.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        new.replace(self.folder / name)
