"""An animation that notebooks show as it is, and that is saved by the name of its file."""

from __future__ import annotations

import os

from matplotlib.animation import FuncAnimation, writers

from .. import checks, files

_WRITERS = {".gif": "pillow", ".mp4": "ffmpeg", ".html": ""}  # of what each is written by


class Film(FuncAnimation):
    """A matplotlib animation with a player in notebooks."""

    def __repr__(self) -> str:
        return "Film()"

    def _repr_html_(self) -> str:
        return self.to_jshtml()

    def save(self, filename: str | os.PathLike, writer=None, **options) -> None:  # type: ignore[override]
        """Write to a .gif, a .mp4 (by ffmpeg, which is a program of its own) or a .html with a player.

        Parameters
        ----------
        filename : path
        writer, **options
            As matplotlib's `Animation.save` takes them; None chooses by the name of the file.

        Raises
        ------
        ValueError
            If the name ends otherwise, or ffmpeg is not installed.
        """
        path = checks.path(filename, "filename")
        if writer is None:
            writer = _WRITERS.get(path.suffix.lower())
            if writer is None:
                raise ValueError(f"filename must end in .gif, .mp4 or .html, got {path.name!r}")
            if writer == "":
                with files.whole(path, "w", "filename") as file:
                    file.write(self.to_jshtml())
                return
            if not writers.is_available(writer):
                raise ValueError(f"filename must end in .gif or .html where {writer} is not installed, got {path.name!r}")
        super().save(path, writer=writer, **options)
