"""The networks of notebook 1, for everything else to import.

Made from the cells tagged `model` by `python run.py report`: change them there.
"""

import keras
from keras import layers

from helpers import data


def normalisation():
    """0..255 -> about zero with a spread of one, by mean and deviation of each colour"""
    mean, variance = [255 * m for m in data.MEAN], [(255 * s) ** 2 for s in data.STD]
    return layers.Normalization(mean=mean, variance=variance)


def augmentation_layers(translate=4):
    """A flip and a shift by up to so many pixels for each image, both at random"""
    shift = translate / 32
    return [
        layers.RandomFlip("horizontal", dtype="float32"),
        layers.RandomTranslation(
            shift, shift, fill_mode="reflect", interpolation="nearest", dtype="float32"
        ),
    ]


def baseline(widths=(64, 128, 224), dropout=0.1, translate=4, classes=10, augment=True):
    """uint8 images (n, 32, 32, 3) -> logits (n, classes)"""
    stack = [keras.Input((32, 32, 3))]
    if augment:
        stack += augmentation_layers(translate)
    stack += [normalisation()]
    for width in widths:
        stack += [
            layers.Conv2D(width, 3, padding="same", use_bias=False), layers.MaxPooling2D(),
            layers.BatchNormalization(momentum=0.9), layers.Activation("relu"),
            layers.Conv2D(width, 3, padding="same", use_bias=False),
            layers.BatchNormalization(momentum=0.9), layers.Activation("relu"),
            layers.Dropout(dropout),
        ]
    stack += [layers.GlobalMaxPooling2D(), layers.Dense(classes, dtype="float32")]
    return keras.Sequential(stack, name="baseline")
