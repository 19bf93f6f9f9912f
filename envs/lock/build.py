"""Makes the features of `lock/images`: draws characters, trains a small network to read them, keeps its last layer.

python -m robotrl.envs.lock.build <folder>

The network is trained on pictures of its own; those of the splits `train` and `test` it never sees. The same seed makes
the same pictures; on the same machine and versions, the same features.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robotrl.envs.lock.features import SPLITS, save
from robotrl.envs.lock.pictures import CHARACTERS, distorted, glyphs


@dataclass(frozen=True, slots=True)
class Recipe:
    """How features are made; with the defaults a linear probe reads about three in four, on either split."""

    train_pictures: int = 200
    """Pictures of each character."""
    test_pictures: int = 100
    steps: int = 800
    """Of the network's training."""
    batch_size: int = 256
    dim: int = 64
    """Numbers of a feature vector."""
    strength: float = 0.7
    """Of the pictures' distortion."""
    characters: str = CHARACTERS
    probe_steps: int = 400
    """Of the linear probe's training."""
    seed: int = 0


class Reader(nn.Module):
    """Three strided convolutions and two layers; its features are of length 1."""

    def __init__(self, dim: int, classes: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, 16, 5, stride=2, padding=2), nn.ReLU(),
            nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.ReLU(),
            nn.Conv2d(32, 64, 3, stride=2, padding=1), nn.ReLU(),
            nn.Flatten(), nn.Linear(64 * 16, 128), nn.ReLU(), nn.Linear(128, dim),
        )  # fmt: skip
        self.head = nn.Linear(dim, classes)

    def features(self, pictures: Tensor) -> Tensor:
        """Of uint8 pictures `[B, 32, 32]`: `[B, dim]`."""
        return F.normalize(self.body((pictures.unsqueeze(1).float() - 96.0) / 64.0), dim=-1)

    def forward(self, pictures: Tensor) -> Tensor:
        """Logits of the characters, `[B, classes]`."""
        logits: Tensor = self.head(10.0 * self.features(pictures))
        return logits


def build(folder: str | Path, recipe: Recipe | None = None) -> Path:
    """Make the features in `folder`; the file's path.

    Args:
        folder: made if missing.
        recipe: None: the default one.
    """
    recipe, started = recipe or Recipe(), time.perf_counter()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        sheets = glyphs(recipe.characters)
        reader = _trained(sheets, recipe)
        counts = (recipe.train_pictures, recipe.test_pictures)
        pictures = {
            split: _pictures(sheets, recipe, count, stream)
            for stream, (split, count) in enumerate(zip(SPLITS, counts, strict=True), 1)
        }
        vectors = {split: _features(reader, shown) for split, shown in pictures.items()}
        accuracy = probe(vectors["train"], vectors["test"], recipe.probe_steps)
    facts: dict[str, Any] = {
        "recipe": asdict(recipe), "probe": accuracy, "seconds": round(time.perf_counter() - started, 1),
    }  # fmt: skip
    return save(Path(folder), {s: (vectors[s].numpy(), pictures[s].numpy()) for s in SPLITS}, facts)


def _generator(recipe: Recipe, stream: int) -> torch.Generator:
    """Streams: 0 the network's pictures, 1 train, 2 test."""
    return torch.Generator().manual_seed(int(np.random.SeedSequence((recipe.seed, stream)).generate_state(1)[0]))


def _trained(sheets: Tensor, recipe: Recipe) -> Reader:
    classes, generator = len(sheets), _generator(recipe, 0)
    reader = Reader(recipe.dim, classes)
    adam = torch.optim.Adam(reader.parameters(), lr=2e-3)
    for step in range(recipe.steps):
        adam.param_groups[0]["lr"] = 2e-3 * (1.0 - step / recipe.steps)
        character = torch.randint(classes, (recipe.batch_size,), generator=generator)
        loss = F.cross_entropy(reader(distorted(sheets, character, generator, recipe.strength)), character)
        adam.zero_grad()
        loss.backward()
        adam.step()
    return reader.eval()


def _pictures(sheets: Tensor, recipe: Recipe, count: int, stream: int) -> Tensor:
    """`count` pictures of every character, uint8 `[classes, count, 32, 32]`."""
    generator = _generator(recipe, stream)
    return torch.stack([
        distorted(sheets, torch.full((count,), line), generator, recipe.strength) for line in range(len(sheets))
    ])  # fmt: skip


@torch.no_grad()
def _features(reader: Reader, pictures: Tensor) -> Tensor:
    return torch.stack([reader.features(part) for part in pictures])


def probe(train: Tensor, test: Tensor, steps: int) -> dict[str, float]:
    """Accuracy on both splits of a linear classifier fitted to the features `[classes, count, D]` of the first."""
    classes, _, dim = train.shape
    x, y = train.flatten(0, 1), torch.arange(classes).repeat_interleave(train.shape[1])
    head, generator = nn.Linear(dim, classes), torch.Generator().manual_seed(0)
    adam = torch.optim.Adam(head.parameters(), lr=3e-2)
    for step in range(steps):
        adam.param_groups[0]["lr"] = 3e-2 * (1.0 - step / steps)
        rows = torch.randint(len(x), (min(2048, len(x)),), generator=generator)
        loss = F.cross_entropy(10.0 * head(x[rows]), y[rows])
        adam.zero_grad()
        loss.backward()
        adam.step()
    right = {}
    for name, split in (("train", train), ("test", test)):
        with torch.no_grad():
            said = head(split.flatten(0, 1)).argmax(-1).view(split.shape[:2])
        right[name] = float((said == torch.arange(classes).unsqueeze(1)).float().mean())
    return right


def main(argv: Sequence[str] | None = None) -> int:
    """The command line."""
    about = (__doc__ or "").splitlines()[0]
    parser = argparse.ArgumentParser(prog="python -m robotrl.envs.lock.build", description=about)
    parser.add_argument("folder")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args(argv)
    path = build(asked.folder, Recipe(seed=asked.seed))
    sys.stdout.write(f"{path} is made. Use it with: env=lock/images env.options.features={asked.folder}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
