"""A documentation page: its experiments, and the functions that make its text and figures from their results."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pages.experiments import Experiment, Records, Result, read_records, read_results, staleness
from pages.freshness import Staleness


@dataclass(frozen=True)
class Page:
    """The page docs/NAME.md; the results of its experiments are in the folder docs/NAME."""

    name: str
    experiments: Sequence[Experiment]
    text: Callable[[list[Result], Records, Path], str]
    """Function (results, records, docs folder) → content of the page."""
    write_figures: Callable[[list[Result], Records, Path], None]
    """Function (results, records, docs folder) that writes the figures."""

    def write(self, docs: Path) -> None:
        """Write the figures, then the page."""
        content = self._content(docs)
        self.write_figures(*content)
        (docs / f"{self.name}.md").write_text(self.text(*content))

    def text_is_current(self, docs: Path) -> bool:
        """Return whether the text of the page matches the recorded results."""
        return (docs / f"{self.name}.md").read_text() == self.text(*self._content(docs))

    def staleness(self, docs: Path) -> dict[str, Staleness]:
        """Say for each experiment what has changed since it was recorded."""
        return staleness(self.experiments, read_records(docs / self.name))

    def _content(self, docs: Path) -> tuple[list[Result], Records, Path]:
        folder = docs / self.name
        return read_results(folder), read_records(folder), docs
