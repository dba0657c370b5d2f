"""Train: `python train.py model_in model_out`."""

import sys

import yaml
from data.read_data import read_data
from fedn.utils.kerashelper import KerasHelper
from models.mnist_model import create_seed_model

if __name__ == "__main__":
    with open("settings.yaml") as file:
        settings = yaml.safe_load(file)
    helper = KerasHelper()
    model = create_seed_model()
    model.set_weights(helper.load_model(sys.argv[1]))
    x, y, _ = read_data("../data/mnist.npz", settings["training_samples"])
    model.fit(x, y, settings["batch_size"], settings["epochs"])
    helper.save_model(model.get_weights(), sys.argv[2])
