"""The tutorial's model: a dense network in Keras, with any backend."""

from collections.abc import Sequence
from typing import Any

import keras


def get_model(
    input_shape: tuple[int, ...] = (32, 32, 3),
    dense_units_per_layer: Sequence[int] = (256, 128),
    num_classes: int = 10,
) -> Any:
    """Return hidden layers and a softmax."""
    layers = keras.layers
    model = keras.Sequential([layers.Input(input_shape), layers.Rescaling(1 / 255)])
    model.add(layers.Flatten())
    for units in dense_units_per_layer:
        model.add(layers.Dense(units, activation="relu"))
    model.add(layers.Dense(num_classes, activation="softmax"))
    return model
