"""losslab, a laboratory for loss functions.

from losslab.losses import Focal

loss = Focal(gamma=2.0)(logits, labels)
"""

from pathlib import Path

__version__ = "0.1.0"

_CHECKOUT = Path(__file__).resolve().parents[2] / "conf"
# A checkout has conf/ next to src/. An editable install may contain an old copy, so the conf/ of the checkout is used.
CONF = _CHECKOUT if (_CHECKOUT / "train.yaml").is_file() else Path(__file__).resolve().parent / "conf"
"""The folder of configurations."""
