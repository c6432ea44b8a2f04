"""Experiments of the section "Loss and gradient": gradient clipping, and one learning rate for all losses."""

from pages.choosing_guide.situation import Sweep, Sweeps

_SGD = ("model=linear", "data=linear_synthetic", "data.data_seed=${seed}", "noise=outliers", "optimizer.lr=0.05")
_EPOCHS = "trainer.max_epochs=100"
_FULL_BATCH = ("trainer.max_epochs=2000", "data.batch_size=null")
_PLAIN = ("model=mlp", "data=digits", "data.size=8", "data.batch_size=128", "data.split_seed=${seed}", "optimizer=sgd")

CLIPPING = Sweeps(
    "clipping",
    (
        Sweep((*_SGD, _EPOCHS, "loss=mse,huber"), seeds=8),
        Sweep((*_SGD, _EPOCHS, "loss=mse", "trainer.gradient_clip_val=1,0.1"), seeds=8),
        Sweep((*_SGD, *_FULL_BATCH, "loss=mse"), seeds=8, label="loss=mse, full batch"),
        Sweep(
            (*_SGD, *_FULL_BATCH, "loss=mse", "trainer.gradient_clip_val=0.1"),
            seeds=8,
            label="loss=mse, full batch, trainer.gradient_clip_val=0.1",
        ),
    ),
    ("test/mse",),
    "loss=mse",
)

LEARNING_RATES = Sweeps(
    "rates",
    (
        Sweep(
            (*_PLAIN, "trainer.max_epochs=20", "optimizer.lr=0.01,0.1,1.0", "loss=cross_entropy,logit_norm,nce"),
            seeds=3,
        ),
    ),
    ("test/accuracy",),
)
