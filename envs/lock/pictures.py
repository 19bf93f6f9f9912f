"""Pictures of characters: rendered in several fonts and distorted at random, so that no two are alike.

The fonts are those that come with Matplotlib (DejaVu and STIX), so the pictures are the same on every machine with the
same version of it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

SIZE = 32
"""Height and width of a picture."""
_LATIN = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
_GREEK = "ΓΔΘΛΞΠΣΦΨΩαβγδεζηθκλμνξπρστφχψω"
CHARACTERS = _LATIN + _GREEK + "&@#%$?!+=*/<>()[]{}"
"""More than a hundred; those that look alike (O and 0, l and I) are there on purpose: pictures do not tell all."""
FONTS = (
    "DejaVuSans", "DejaVuSans-Bold", "DejaVuSans-Oblique", "DejaVuSansMono", "DejaVuSansMono-Bold", "DejaVuSerif",
    "DejaVuSerif-Bold", "DejaVuSerif-Italic", "STIXGeneral", "STIXGeneralBol", "STIXGeneralItalic",
)  # fmt: skip
_CANVAS, _POINTS = 48, 32
_ZOOM = 0.75
"""Of the canvas, how much of its width a picture shows."""


def glyphs(characters: str = CHARACTERS) -> Tensor:
    """Every character in every font, undistorted, `[characters, fonts, 48, 48]` in [0, 1]."""
    import matplotlib
    from matplotlib.ft2font import FT2Font

    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    sheets = np.zeros((len(characters), len(FONTS), _CANVAS, _CANVAS), np.float32)
    for column, name in enumerate(FONTS):
        font = FT2Font(str(folder / f"{name}.ttf"))
        font.set_size(_POINTS, 72)
        lacking = [character for character in characters if ord(character) not in font.get_charmap()]
        if lacking:
            raise ValueError(f"{name} has no {''.join(lacking)}")
        for line, character in enumerate(characters):
            _render(font, character, sheets[line, column])
    return torch.from_numpy(sheets)


def _render(font: Any, character: str, canvas: NDArray[np.float32]) -> None:
    """Put one character into the middle of an empty square."""
    font.set_text(character, 0.0)
    font.draw_glyphs_to_bitmap(antialiased=True)
    drawn = (np.asarray(font.get_image(), np.float32) / 255.0)[:_CANVAS, :_CANVAS]
    y, x = (_CANVAS - drawn.shape[0]) // 2, (_CANVAS - drawn.shape[1]) // 2
    canvas[y : y + drawn.shape[0], x : x + drawn.shape[1]] = drawn


def distorted(sheets: Tensor, character: Tensor, generator: torch.Generator, strength: float) -> Tensor:
    """Random pictures of the characters with these numbers, uint8 `[B, 32, 32]`.

    Each has a font, turn, slant, size, place, bend, thickness of fog, contrast and noise of its own.

    Args:
        sheets: from `glyphs`.
        character: `[B]`.
        generator: of what is random.
        strength: of the distortion; 0: none but the font.
    """
    count = len(character)

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(count, *shape, generator=generator)

    font = torch.randint(sheets.shape[1], (count,), generator=generator)
    turn, slant = uniform(-0.5, 0.5) * strength, uniform(-0.4, 0.4) * strength
    size_x, size_y = (_ZOOM * (1.0 + uniform(-0.25, 0.35) * strength) for _ in range(2))
    cos, sin = torch.cos(turn), torch.sin(turn)
    matrix = torch.stack([
        torch.stack([size_x * cos, size_x * (slant * cos - sin), uniform(-0.25, 0.25) * strength], -1),
        torch.stack([size_y * sin, size_y * (slant * sin + cos), uniform(-0.25, 0.25) * strength], -1),
    ], 1)  # fmt: skip
    grid = F.affine_grid(matrix, [count, 1, SIZE, SIZE], align_corners=False)
    bend = torch.randn(count, 2, 5, 5, generator=generator) * (0.10 * strength)
    grid = grid + F.interpolate(bend, (SIZE, SIZE), mode="bicubic", align_corners=True).permute(0, 2, 3, 1)
    ink = F.grid_sample(sheets[character, font].unsqueeze(1), grid, align_corners=False).squeeze(1)
    paper, contrast = uniform(0.0, 0.35, 1, 1), uniform(0.35, 0.65, 1, 1)
    noise = torch.randn(count, SIZE, SIZE, generator=generator) * (uniform(0.0, 0.2, 1, 1) * strength)
    return ((paper + contrast * ink + noise).clamp(0.0, 1.0) * 255.0).round().to(torch.uint8)


__all__ = ["CHARACTERS", "FONTS", "SIZE", "distorted", "glyphs"]
