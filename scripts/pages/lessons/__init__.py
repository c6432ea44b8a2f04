"""docs/lessons.md: experiments of conf/experiment, each of which shows one effect of a loss."""

from pages.lessons import calibration, classification, regression
from pages.lessons.figure import write_figures
from pages.lessons.text import text
from pages.page import Page

LESSONS = (
    regression.HUBER,
    classification.MAE,
    classification.NOISE,
    calibration.FOCAL,
    calibration.SMOOTHING,
    classification.SQUARED,
    classification.TAIL,
    classification.VANISHING,
    regression.CLIPPING,
)
PAGE = Page(
    "lessons",
    LESSONS,
    lambda results, records, _docs: text(LESSONS, results, records),
    lambda results, records, docs: write_figures(LESSONS, results, records, docs / "lessons"),
)
