"""Datasets for PyTorch that read from Forebay, also while it is written.

>>> from forebay.torch import IterableDataset                                            # doctest: +SKIP
>>> from torch.utils.data import DataLoader                                              # doctest: +SKIP
>>> dataset = IterableDataset("forebay://127.0.0.1:47470/features/day=1", batch_size=1024)  # doctest: +SKIP
>>> for batch in DataLoader(dataset, batch_size=None, num_workers=4):                    # doctest: +SKIP
...     loss = model(batch["x"], batch["label"])

An item is a dict of column to tensor: a row, or a batch where `batch_size` is given. What becomes of each type: `forebay.torch.tensors`.
"""

from .iterable import IterableDataset
from .mapped import MapDataset

__all__ = ["IterableDataset", "MapDataset"]
