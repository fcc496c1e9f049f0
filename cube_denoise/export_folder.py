"""Where exported files go: a local folder or a prefix in a bucket."""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from cube_denoise import places


class ExportFolder:
    """A local folder, or a prefix in a bucket, that gets whole files."""

    def __init__(self, url: str | Path) -> None:
        self.url = str(url)
        self.local = places.local_path(url)
        if self.local is None:
            places.check(url)

    def place(self, name: str) -> Path | str:
        """Where a file of the folder is."""
        if self.local is not None:
            return Path(self.url.removeprefix("file://")) / name
        address, mark, options = self.url.partition("?")
        return f"{address.rstrip('/')}/{name}{mark}{options}"

    def present(self) -> set[str]:
        """Names of the files that are there."""
        import obstore

        if self.local is not None:
            return {p.name for p in self.local.glob("*")}
        found = obstore.list_with_delimiter(places.object_store(self.url))
        return {entry["path"] for entry in found["objects"]}

    def check(self, names: Sequence[str], *, overwrite: bool) -> None:
        """Refuse to replace files unless asked to."""
        taken = [str(self.place(n)) for n in names if n in self.present()]
        if taken and not overwrite:
            raise ValueError(
                f"{', '.join(taken)} exists: give another folder or overwrite"
            )

    @contextmanager
    def writing(self, name: str) -> Iterator[Path]:
        """Give a path to write to; the file is in its place when that has ended well.

        On disk the path is beside the place, so that renaming is enough.
        """
        import obstore

        if self.local is not None:
            self.local.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self.local, prefix=".exporting-") as work:
            yield Path(work) / name
            if self.local is not None:
                (Path(work) / name).replace(self.local / name)
                return
            try:
                obstore.put(places.object_store(self.url), name, Path(work) / name)
            except obstore.exceptions.BaseError as error:
                raise places.unreachable(self.url, error) from None
