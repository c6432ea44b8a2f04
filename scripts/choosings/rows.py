"""All rows in the order of the page, and the runs about gradients."""

from choosings import classes, purposes, values
from choosings.row import Row, Trial

ROWS = (*values.ROWS, *classes.ROWS, *purposes.ROWS)

_SGD = ("model=linear", "data=linear_synthetic", "data.data_seed=${seed}", "noise=outliers", "optimizer.lr=0.05")
_EPOCHS = "trainer.max_epochs=100"
_WHOLE = ("trainer.max_epochs=2000", "data.batch_size=null")


def _runs(name: str, metric: str, baseline: str, *trials: Trial) -> Row:
    return Row(name, "", "", "", "", "", trials, (metric,), baseline)


CLIPPING = _runs(
    "clipping",
    "test/mse",
    "loss=mse",
    Trial((*_SGD, _EPOCHS, "loss=mse,huber"), seeds=8),
    Trial((*_SGD, _EPOCHS, "loss=mse", "trainer.gradient_clip_val=1,0.1"), seeds=8),
    Trial((*_SGD, *_WHOLE, "loss=mse"), seeds=8, label="loss=mse, full batch"),
    Trial(
        (*_SGD, *_WHOLE, "loss=mse", "trainer.gradient_clip_val=0.1"),
        seeds=8,
        label="loss=mse, full batch, trainer.gradient_clip_val=0.1",
    ),
)

_PLAIN = ("model=mlp", "data=digits", "data.size=8", "data.batch_size=128", "data.split_seed=${seed}", "optimizer=sgd")

RATES = _runs(
    "rates",
    "test/accuracy",
    "",
    Trial(
        (*_PLAIN, "trainer.max_epochs=20", "optimizer.lr=0.01,0.1,1.0", "loss=cross_entropy,logit_norm,nce"),
        seeds=3,
    ),
)

EVERYTHING = (*ROWS, CLIPPING, RATES)
