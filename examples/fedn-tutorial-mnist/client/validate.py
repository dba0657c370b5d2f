"""Validate: `python validate.py model_in validation.json`."""

import json
import sys

import yaml
from data.read_data import read_data
from fedn.utils.kerashelper import KerasHelper
from models.mnist_model import create_seed_model

if __name__ == "__main__":
    with open("settings.yaml") as file:
        settings = yaml.safe_load(file)
    model = create_seed_model()
    model.set_weights(KerasHelper().load_model(sys.argv[1]))
    report = {}
    for name, trainset in (("training", True), ("test", False)):
        x, y, classes = read_data("../data/mnist.npz", settings[f"{name}_samples"], trainset)
        report[f"{name}_loss"], report[f"{name}_accuracy"] = model.evaluate(x, y)
    report["note"] = f"{classes} classes"
    with open(sys.argv[2], "w") as file:
        json.dump(report, file)
