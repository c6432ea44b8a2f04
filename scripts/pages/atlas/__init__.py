"""docs/atlas.md: all losses in all situations, each situation as one study."""

from pages.atlas.figure import write_figures
from pages.atlas.studies import TASKS
from pages.atlas.text import text
from pages.page import Page

PAGE = Page(
    "atlas",
    tuple(situation.study for task in TASKS for situation in task.situations),
    lambda _results, records, docs: text(TASKS, records, docs / "atlas"),
    lambda _results, _records, docs: write_figures(TASKS, docs / "atlas"),
)
