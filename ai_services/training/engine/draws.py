"""Which samples a step of a run uses, drawn alike on any machine.

Step s draws by a generator that is seeded with the recipe's seed and s alone, and each sample is varied by one of its
own. So a resumed run continues with the samples it would have had, and processes divide a batch without changing it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import torch


class Draws:
    """Draws of a split's samples: each patient is as likely as another, however many samples they gave.

    Parameters
    ----------
    patients : the patient of each sample
    batch : samples of a step, over all processes together
    seed : of the recipe
    """

    def __init__(self, patients: Sequence[str], batch: int, seed: int) -> None:
        self._batch, self._seed = batch, seed
        count = Counter(patients)
        self._weights = torch.tensor([1 / count[patient] for patient in patients])

    def __len__(self) -> int:
        return len(self._weights)

    def drawn(self, step: int) -> list[int]:
        """Return the indexes of the samples that a step uses, in the order of its batch."""
        generator = generator_of(self._seed, step)
        chosen = torch.multinomial(self._weights, self._batch, replacement=True, generator=generator)
        return [int(index) for index in chosen]

    def generator(self, step: int, position: int) -> torch.Generator:
        """What varies the sample at one place of a step's batch."""
        return generator_of(self._seed, step, position)


def generator_of(*numbers: int) -> torch.Generator:
    """A generator that the numbers alone decide."""
    seed = int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1))
    return torch.Generator().manual_seed(seed)
