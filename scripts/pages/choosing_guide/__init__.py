"""docs/choosing.md: a decision table of losses with the results of studies, and a section on gradients."""

from pages.choosing_guide import gradients
from pages.choosing_guide.gradient_runs import CLIPPING, LEARNING_RATES
from pages.choosing_guide.text import SITUATIONS, text
from pages.page import Page

PAGE = Page(
    "choosing",
    (*(each for situation in SITUATIONS for each in situation.experiments), CLIPPING, LEARNING_RATES),
    lambda results, records, docs: text(results, records, gradients.read(docs / "figures"), docs / "choosing"),
    lambda _results, _records, docs: gradients.save(gradients.measure(), docs / "figures"),
)
