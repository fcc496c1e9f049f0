"""The task of diffusion and of the bridge: pairs, with the network's own loss."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from cube_denoise.training.pairs import PairTask


@dataclass(frozen=True, kw_only=True)
class GenerativeTask(PairTask):
    """Samples and scores of `PairTask`; the network draws times and noise itself."""

    objective: ClassVar[str] = "the network's own loss, at random times of its process"

    def loss(self, model: Any, batch: Any) -> torch.Tensor:
        """See `Task.loss`."""
        loss: torch.Tensor = model.loss(batch.inputs, batch.noise, batch.valid)
        return loss
