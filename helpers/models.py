"""The networks of notebooks 2 and 3, for everything else to import.

Made from the cells tagged `model` by `python run.py report`: change them there.
"""

from torch import nn
from torch.nn import functional as F


def convolution(inputs, outputs, padding=1):
    """3×3, without a bias: BatchNorm has one"""
    return nn.Conv2d(inputs, outputs, kernel_size=3, padding=padding, bias=False)


class BatchNorm(nn.BatchNorm2d):
    """With a bias that is trained and a scale of one that is not"""

    def __init__(self, channels):
        super().__init__(channels, momentum=0.4)
        self.weight.requires_grad_(False)


class Residual(nn.Module):
    """(n, channels, s, s) -> (n, channels, s, s)"""

    def __init__(self, channels, shortcut=True):
        super().__init__()
        self.shortcut = shortcut
        self.layers = nn.Sequential(
            convolution(channels, channels), BatchNorm(channels), nn.GELU(),
            convolution(channels, channels), BatchNorm(channels),
        )

    def forward(self, x):
        return nn.functional.gelu(x + self.layers(x) if self.shortcut else self.layers(x))


class Block(nn.Sequential):
    """(n, inputs, s, s) -> (n, outputs, s // 2, s // 2), or one less without padding"""

    def __init__(self, inputs, outputs, padding=1, shortcut=True):
        super().__init__(
            convolution(inputs, outputs, padding), nn.MaxPool2d(2),
            BatchNorm(outputs), nn.GELU(),
            Residual(outputs, shortcut),
        )


class CustomCNN(nn.Sequential):
    """(n, 3, 32, 32) normalised images -> (n, 10) logits"""

    def __init__(self, widths=(64, 176, 192), classes=10, shortcut=True):
        a, b, c = widths
        head = nn.Linear(c, classes, bias=False)
        nn.init.normal_(head.weight, std=0.004)
        super().__init__(
            Block(3, a, padding=0, shortcut=shortcut),
            Block(a, b, shortcut=shortcut),
            Block(b, c, shortcut=shortcut),
            nn.AdaptiveMaxPool2d(1), nn.Flatten(), head,
        )


class ResidualBlock(nn.Module):
    """(n, inputs, s, s) -> (n, outputs, s / stride, s / stride)"""

    def __init__(self, inputs, outputs, stride=1, skip=True):
        super().__init__()
        self.conv1 = nn.Conv2d(
            inputs, outputs, kernel_size=3, stride=stride, padding=1, bias=False
        )
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, kernel_size=3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.skip = skip
        self.shortcut = nn.Identity()
        if skip and (stride != 1 or inputs != outputs):
            self.shortcut = nn.Sequential(
                nn.Conv2d(inputs, outputs, kernel_size=1, stride=stride, bias=False),
                nn.BatchNorm2d(outputs),
            )

    def forward(self, x):
        correction = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(correction + self.shortcut(x)) if self.skip else F.relu(correction)


class ResNet(nn.Module):
    """(n, 3, s, s) normalised images -> (n, classes) logits

    blocks: how many in each of the four stages
    """

    def __init__(self, blocks=(2, 2, 2, 2), width=64, classes=10, skip=True):
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, width, kernel_size=3, padding=1, bias=False),
            nn.BatchNorm2d(width), nn.ReLU(),
        )
        stages, inputs = [], width
        for stage, count in enumerate(blocks):
            outputs = width * 2**stage
            for block in range(count):
                stride = 2 if stage > 0 and block == 0 else 1
                stages.append(ResidualBlock(inputs, outputs, stride, skip))
                inputs = outputs
        self.stages = nn.Sequential(*stages)
        self.head = nn.Linear(inputs, classes)

    def forward(self, x):
        features = self.stages(self.stem(x))
        return self.head(features.mean((2, 3)))  # global average pooling
