"""All rows in the order of the page, and the runs about clipping."""

from choosings import classes, purposes, values
from choosings.row import Row, Trial

ROWS = (*values.ROWS, *classes.ROWS, *purposes.ROWS)

_SGD = ("model=linear", "data=linear_synthetic", "data.data_seed=${seed}", "data.outliers=0.1", "optimizer.lr=0.05")
_EPOCHS = "trainer.max_epochs=100"

CLIPPING = Row(
    name="clipping",
    situation="",
    first="",
    compare="",
    reason="",
    source="",
    trials=(
        Trial((*_SGD, _EPOCHS, "loss=mse,huber")),
        Trial((*_SGD, _EPOCHS, "loss=mse", "trainer.gradient_clip_val=1,0.1")),
        Trial((*_SGD, "trainer.max_epochs=2000", "data.batch_size=null", "loss=mse", "trainer.gradient_clip_val=0.1")),
    ),
    metrics=("test/mse",),
    baseline="loss=mse",
)
