"""A learner: one part of CIFAR-10 and a dense network in Keras."""

import argparse
from typing import Any

import keras
from controller import controller_params
from driver import MAX_LEARNERS, get_learner_server_params
from model import get_model

from hansa.compat.metisfl import ClientParams, Learner, app, iid_partition


class KerasLearner(Learner):
    """The tutorial's learner."""

    def __init__(self, x_train: Any, y_train: Any, x_test: Any, y_test: Any) -> None:
        self.model = get_model()
        self.model.compile(
            loss="sparse_categorical_crossentropy", optimizer="adam", metrics=["accuracy"]
        )
        self.x_train, self.y_train = x_train, y_train
        self.x_test, self.y_test = x_test, y_test

    def get_weights(self) -> list[Any]:
        """Return the model's weights."""
        weights: list[Any] = self.model.get_weights()
        return weights

    def set_weights(self, parameters: list[Any]) -> None:
        """Take weights over into the model."""
        self.model.set_weights(parameters)

    def train(self, parameters: list[Any], config: dict[str, Any]) -> Any:
        """Train from these weights."""
        self.model.set_weights(parameters)
        history = self.model.fit(
            x=self.x_train,
            y=self.y_train,
            batch_size=config.get("batch_size", 64),
            epochs=config.get("epochs", 3),
        ).history
        metadata = {"num_training_examples": len(self.x_train)}
        return self.model.get_weights(), history, metadata

    def evaluate(self, parameters: list[Any], config: dict[str, Any]) -> dict[str, Any]:
        """Return loss and accuracy on the test part."""
        self.model.set_weights(parameters)
        loss, accuracy = self.model.evaluate(self.x_test, self.y_test)
        return {"accuracy": float(accuracy), "loss": float(loss)}


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    ids = range(1, MAX_LEARNERS + 1)
    parser.add_argument("-l", "--learner", type=int, choices=ids, required=True)
    index = parser.parse_args().learner - 1
    (x_train, y_train), (x_test, y_test) = keras.datasets.cifar10.load_data()
    x_chunks, y_chunks = iid_partition(x_train, y_train, num_partitions=MAX_LEARNERS, seed=1990)
    learner = KerasLearner(x_chunks[index], y_chunks[index], x_test, y_test)
    client_params = ClientParams(hostname=controller_params.hostname, port=controller_params.port)
    app(learner, get_learner_server_params(index), client_params)
