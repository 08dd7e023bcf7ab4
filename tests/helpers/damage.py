"""Every way in which a file may come to be something else than what was written."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

Damage = Callable[[Path, random.Random], None]


def flip(path: Path, bit: int) -> None:
    """Flip one bit of a file in place."""
    with path.open("r+b") as file:
        file.seek(bit // 8)
        (byte,) = file.read(1)
        file.seek(bit // 8)
        file.write(bytes([byte ^ 1 << bit % 8]))


def random_bit(path: Path, generator: random.Random) -> None:
    flip(path, generator.randrange(8 * path.stat().st_size))


def half(path: Path, generator: random.Random) -> None:
    os.truncate(path, path.stat().st_size // 2)


def zeros(path: Path, generator: random.Random) -> None:
    size = path.stat().st_size
    start = generator.randrange(size - 1)
    with path.open("r+b") as file:
        # Zeros that were zeros before would be no damage.
        file.write(b"\xff")
        file.seek(start)
        file.write(bytes(size - start))


def empty(path: Path, generator: random.Random) -> None:
    os.truncate(path, 0)


def longer(path: Path, generator: random.Random) -> None:
    with path.open("ab") as file:
        file.write(b"\n")


def other_json(path: Path, generator: random.Random) -> None:
    path.write_text('{"content": {"kept": {}}, "made_by": null}')


def another(path: Path, generator: random.Random) -> None:
    """The file, or the folder of the file, of another artefact."""
    place = path if path.parent.name in ("masks", "evaluations", "facts") else path.parent
    others = [other for other in place.parent.glob("[0-9a-f]*") if other != place]
    if others:
        other = generator.choice(sorted(others))
        remove(place)
        (shutil.copytree if other.is_dir() else shutil.copyfile)(other, place)
    else:
        random_bit(path, generator)


def folder(path: Path, generator: random.Random) -> None:
    path.unlink()
    path.mkdir()


def file_for_folder(path: Path, generator: random.Random) -> None:
    """Where the artefact is a folder, a file in the place of it."""
    place = path.parent if path.suffix == ".safetensors" or path.name == "meta.json" else path
    remove(place)
    place.write_text("")


def pipe(path: Path, generator: random.Random) -> None:
    path.unlink()
    os.mkfifo(path)


def device(path: Path, generator: random.Random) -> None:
    path.unlink()
    path.symlink_to("/dev/zero")


def dangling(path: Path, generator: random.Random) -> None:
    path.unlink()
    path.symlink_to("nowhere")


def loop(path: Path, generator: random.Random) -> None:
    path.unlink()
    path.symlink_to(path.name)


def unreadable(path: Path, generator: random.Random) -> None:
    """Nobody may read it; whom that does not stop finds a bit flipped."""
    if os.access("/root", os.W_OK):
        random_bit(path, generator)
    path.chmod(0)


def gone(path: Path, generator: random.Random) -> None:
    """Of a folder, one file; of a file, all but its name."""
    if path.parent.parent.name == "statistics":
        path.unlink()
    else:
        empty(path, generator)


DAMAGES: tuple[Damage, ...] = (
    random_bit,
    half,
    zeros,
    empty,
    longer,
    other_json,
    another,
    folder,
    file_for_folder,
    pipe,
    device,
    dangling,
    loop,
    unreadable,
    gone,
)


def remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()
