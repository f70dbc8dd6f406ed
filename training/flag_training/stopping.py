"""Early stopping on slides held out of the training, which are never those a result is scored on."""

import copy
from typing import Any

from torch import nn


class Stopper:
    """Remembers the best parameters seen, and when to stop.

    Parameters
    ----------
    patience
        Looks without improvement that end the training.
    """

    def __init__(self, patience: int) -> None:
        self._patience = patience
        self._least = float("inf")
        self._since = 0
        self._best: dict[str, Any] | None = None

    @property
    def stopped(self) -> bool:
        """Whether the held-out loss has not fallen for long enough."""
        return 0 < self._patience <= self._since

    def see(self, loss: float, module: nn.Module) -> float:
        """Take note of the held-out `loss` of `module`, and return it."""
        self._since += 1
        if loss < self._least:
            self._least, self._since = loss, 0
            self._best = copy.deepcopy(module.state_dict())
        return loss

    def restore(self, module: nn.Module) -> None:
        """Give `module` the best parameters seen, if it was ever looked at."""
        if self._best is not None:
            module.load_state_dict(self._best)

    def state_dict(self) -> dict[str, Any]:
        """Return all of it."""
        return {"least": self._least, "since": self._since, "best": self._best}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take all of it back."""
        self._least, self._since, self._best = state["least"], state["since"], state["best"]
