"""Pictures of characters and their features, as `robotrl.envs.lock.build` leaves them in a folder."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robotrl.types import RobotRLError

FILE = "features.safetensors"
FORMAT = 1
SPLITS = ("train", "test")
MAX_BYTES = 1 << 30


@dataclass(frozen=True, slots=True)
class Features:
    """One split: features `vectors [characters, pictures of each, D]` (float32, of length 1) and the pictures.

    `facts` says how they were made, and how well a linear probe tells the characters apart by them.
    """

    vectors: NDArray[np.float32]
    pictures: NDArray[np.uint8]
    facts: dict[str, Any]

    @property
    def num_classes(self) -> int:
        """Characters."""
        return self.vectors.shape[0]

    @property
    def per_class(self) -> int:
        """Pictures of each."""
        return self.vectors.shape[1]

    @property
    def dim(self) -> int:
        """Numbers of a feature vector."""
        return self.vectors.shape[2]

    def picture(self, character: int, which: int) -> NDArray[np.uint8]:
        """`[height, width]`."""
        return self.pictures[character, which]

    @staticmethod
    def load(folder: str, split: str) -> Features:
        """Read a split; what was read before is not read again.

        Args:
            folder: where `robotrl.envs.lock.build` put them.
            split: `train` or `test`.

        Raises:
            RobotRLError: there are none, or they are damaged.
        """
        path = Path(folder) / FILE
        if not folder or not path.is_file():
            where = f"There are no features in {folder}" if folder else "lock/images needs features of pictures"
            raise RobotRLError(
                f"{where}. Make them once, in a minute or two, with: python -m robotrl.envs.lock.build "
                f"{folder or '<folder>'}, and name that folder with env.options.features={folder or '<folder>'}."
            )
        return _load(str(path.resolve()), path.stat().st_mtime_ns, split)


@lru_cache(maxsize=4)
def _load(path: str, _changed: int, split: str) -> Features:
    from safetensors import SafetensorError, safe_open

    if Path(path).stat().st_size > MAX_BYTES:
        raise RobotRLError(f"{path} is larger than {MAX_BYTES >> 30} GiB, which features of characters never are.")
    try:
        with safe_open(path, framework="numpy") as file:
            facts = json.loads((file.metadata() or {}).get("facts", "{}"))
            vectors, pictures = file.get_tensor(f"{split}/features"), file.get_tensor(f"{split}/pictures")
    except (SafetensorError, OSError, ValueError) as error:
        raise RobotRLError(f"{path} cannot be read: {error}. Delete it and make the features again.") from error
    fine = (
        vectors.ndim == 3 and vectors.dtype == np.float32 and vectors.size > 0 and bool(np.isfinite(vectors).all())
        and pictures.ndim == 4 and pictures.dtype == np.uint8 and pictures.shape[:2] == vectors.shape[:2]
        and isinstance(facts, dict) and facts.get("format") == FORMAT
    )  # fmt: skip
    if not fine:
        raise RobotRLError(f"{path} holds something else than features of characters. Delete it and make them again.")
    return Features(vectors, pictures, facts)


def save(folder: Path, splits: dict[str, tuple[NDArray[np.float32], NDArray[np.uint8]]], facts: dict[str, Any]) -> Path:
    """Write features and pictures of every split; the file appears whole or not at all."""
    from safetensors.numpy import save_file

    tensors: dict[str, NDArray[Any]] = {}
    for split, (vectors, pictures) in splits.items():
        tensors[f"{split}/features"] = np.ascontiguousarray(vectors, np.float32)
        tensors[f"{split}/pictures"] = np.ascontiguousarray(pictures, np.uint8)
    folder.mkdir(parents=True, exist_ok=True)
    path, temporary = folder / FILE, folder / (FILE + ".tmp")
    save_file(tensors, temporary, {"facts": json.dumps({"format": FORMAT, **facts})})
    temporary.replace(path)
    return path


__all__ = ["FILE", "SPLITS", "Features", "save"]
