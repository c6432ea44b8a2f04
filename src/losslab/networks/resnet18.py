"""ResNet-18 for small images."""

from torch import nn

from losslab.networks.cifar_cnn import images


def resnet18(input_shape: tuple[int, ...], outputs: int) -> nn.Module:
    """Torchvision's ResNet-18 with a 3×3 stem of stride 1 and no max pooling, so that 32×32 images keep their detail.

    He et al., "Deep residual learning for image recognition", 2016. 11,173,962 parameters for 10 outputs.
    """
    from torchvision.models import resnet18 as imagenet_resnet18  # noqa: PLC0415 -- a second to import, and only here

    channels, _, _ = images("resnet18", input_shape)
    network: nn.Module = imagenet_resnet18(num_classes=outputs)
    network.conv1 = nn.Conv2d(channels, 64, 3, padding=1, bias=False)
    # torchvision's own initialisation of a convolution, which the new stem did not get.
    nn.init.kaiming_normal_(network.conv1.weight, mode="fan_out", nonlinearity="relu")
    network.maxpool = nn.Identity()
    return network
