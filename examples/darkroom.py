"""The work of the examples: enlarge a photograph and refine the enlargement in rounds, which takes seconds.

The method is iterative back-projection (Irani and Peleg, 1991): scale the enlargement down again, compute its difference
from the photograph, and add the difference to the enlargement. Each round reduces the error measurably, so the reported
progress is real. This module does not depend on the queue: a caller passes `report`, and log lines go to `logging`.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageChops, ImageEnhance, ImageFilter, ImageStat

_log = logging.getLogger(__name__)

PHOTOGRAPHS = Path(__file__).parent / "photographs"

Report = Callable[[float, str], None]
"""Called with the progress, from 0 to 1, and the name of the stage."""


@dataclass(frozen=True, slots=True)
class Enlargement:
    """A picture and its error against the photograph before and after the rounds (root mean square, 0 to 255)."""

    picture: Image.Image
    error_before: float
    error_after: float


def load(name: str) -> Image.Image:
    """Load the photograph with this name. Raises `FileNotFoundError` if there is none."""
    with Image.open(PHOTOGRAPHS / f"{name}.jpg") as photograph:
        return photograph.convert("RGB")


def enlarge(photograph: Image.Image, scale: int, rounds: int, report: Report) -> Enlargement:
    """Denoise, enlarge, refine in `rounds` rounds, and sharpen; call `report` before each step."""
    report(0.0, "denoise")
    clean = photograph.filter(ImageFilter.MedianFilter(3))
    report(0.1, "enlarge")
    picture = clean.resize((clean.width * scale, clean.height * scale), Image.Resampling.LANCZOS)
    before = _error(clean, picture)
    for number in range(rounds):
        report(0.15 + 0.8 * number / rounds, f"refine {number + 1}/{rounds}")
        picture = _refined(clean, picture)
    after = _error(clean, picture)
    _log.info("%d x %d pixels: error %.3f, after %d rounds %.3f", *picture.size, before, rounds, after)
    report(0.95, "sharpen")
    picture = picture.filter(ImageFilter.UnsharpMask(radius=scale, percent=60, threshold=2))
    return Enlargement(picture, before, after)


def develop(photograph: Image.Image, exposure: float) -> Image.Image:
    """Make one frame of an exposure series: enlarge it to twice its size, then reduce it to a thumbnail."""
    bright = ImageEnhance.Brightness(photograph).enhance(exposure)
    frame = enlarge(bright, scale=2, rounds=6, report=lambda fraction, stage: None).picture
    frame.thumbnail((160, 160), Image.Resampling.LANCZOS)
    return frame


def paste_up(frames: list[Image.Image], columns: int = 6) -> Image.Image:
    """Arrange thumbnails on a contact sheet."""
    rows = -(-len(frames) // columns)
    sheet = Image.new("RGB", (columns * 160, rows * 160), "black")
    for number, frame in enumerate(frames):
        sheet.paste(frame, (number % columns * 160, number // columns * 160))
    return sheet


def save(picture: Image.Image, folder: Path) -> str:
    """Write a JPEG and return its name.

    The name is a hash of the pixels. A queued request runs at least once, so it may run twice: the second run then writes the
    same file again. A handler needs no other precaution for "at least once".
    """
    folder.mkdir(parents=True, exist_ok=True)
    name = f"{hashlib.sha256(picture.tobytes()).hexdigest()[:16]}.jpg"
    picture.save(folder / name, quality=85)
    return name


def _refined(photograph: Image.Image, picture: Image.Image) -> Image.Image:
    reduced = picture.resize(photograph.size, Image.Resampling.BICUBIC)
    missing = ImageChops.subtract(photograph, reduced, scale=1, offset=128)  # 128 stands for "no difference"
    return ImageChops.add(picture, missing.resize(picture.size, Image.Resampling.BICUBIC), scale=1, offset=-128)


def _error(photograph: Image.Image, picture: Image.Image) -> float:
    reduced = picture.resize(photograph.size, Image.Resampling.BICUBIC)
    bands = ImageStat.Stat(ImageChops.difference(photograph, reduced)).rms
    return round(sum(bands) / len(bands), 3)
