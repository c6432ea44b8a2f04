"""All lessons in the order of the page."""

from curriculum import calibration, classes, values

LESSONS = (*values.LESSONS, *classes.LESSONS[:2], *calibration.LESSONS, *classes.LESSONS[2:], values.CLIPPING)
