"""The small CNN of the CIFAR-10 tutorials."""

from torch import nn

from losslab.errors import LabError


def images(model: str, input_shape: tuple[int, ...], multiple_of: int = 1) -> tuple[int, int, int]:
    """The (channels, height, width) of an input.

    Raises:
        LabError: it is no image, or one that the model cannot halve as often as it must.
    """
    if len(input_shape) != 3 or input_shape[1] % multiple_of or input_shape[2] % multiple_of:
        sides = f" with sides that are multiples of {multiple_of}" if multiple_of > 1 else ""
        message = f"{model} needs images{sides} (data=cifar10, data=digits, ...), got inputs of shape {input_shape}"
        raise LabError(message)
    channels, height, width = input_shape
    return channels, height, width


def cifar_cnn(input_shape: tuple[int, ...], outputs: int) -> nn.Sequential:
    """Three 5×5 convolutions 32-32-64, each followed by 2×2 max pooling, then Linear 64 and Linear to the outputs.

    No activations: max pooling is the only non-linearity. 145,578 parameters for 3×32×32 inputs and 10 outputs.
    """
    channels, height, width = images("cifar_cnn", input_shape, multiple_of=8)
    return nn.Sequential(
        nn.Conv2d(channels, 32, 5, padding=2),
        nn.MaxPool2d(2),
        nn.Conv2d(32, 32, 5, padding=2),
        nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 5, padding=2),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(64 * (height // 8) * (width // 8), 64),
        nn.Linear(64, outputs),
    )
