"""Convolutional networks for small images: the CNN of the CIFAR-10 tutorials, and ResNet-18."""

from torch import nn

from losslab.errors import LabError


def image_shape(model: str, input_shape: tuple[int, ...], multiple_of: int = 1) -> tuple[int, int, int]:
    """Return (channels, height, width). Raise a LabError if the inputs are not images with suitable sides."""
    if len(input_shape) != 3 or input_shape[1] % multiple_of or input_shape[2] % multiple_of:
        sides = f" with sides that are multiples of {multiple_of}" if multiple_of > 1 else ""
        raise LabError(
            f"{model} needs images{sides} (data=cifar10, data=digits, ...), got inputs of shape {input_shape}"
        )
    channels, height, width = input_shape
    return channels, height, width


def cifar_cnn(input_shape: tuple[int, ...], outputs: int) -> nn.Sequential:
    """Three 5×5 convolutions 32-32-64, each followed by 2×2 max pooling, then two linear layers 64-outputs.

    Max pooling is the only non-linearity. The network has 145,578 parameters for 3×32×32 inputs and 10 outputs.
    """
    channels, height, width = image_shape("cifar_cnn", input_shape, multiple_of=8)
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


def resnet18(input_shape: tuple[int, ...], outputs: int) -> nn.Module:
    """Torchvision's ResNet-18 (He et al. 2016, "Deep residual learning for image recognition") for small images.

    The stem is a 3×3 convolution of stride 1 without max pooling. The network has 11,173,962 parameters for 10 outputs.
    """
    from torchvision.models import resnet18 as imagenet_resnet18  # noqa: PLC0415 -- a second to import

    channels, _, _ = image_shape("resnet18", input_shape)
    network: nn.Module = imagenet_resnet18(num_classes=outputs)
    network.conv1 = nn.Conv2d(channels, 64, 3, padding=1, bias=False)
    # torchvision's initialisation of a convolution, for the new stem
    nn.init.kaiming_normal_(network.conv1.weight, mode="fan_out", nonlinearity="relu")
    network.maxpool = nn.Identity()
    return network
