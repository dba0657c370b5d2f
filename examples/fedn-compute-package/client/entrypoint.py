"""Seed model, training and validation of a small network on MNIST, as FEDn calls them.

    python entrypoint.py init_seed
    python entrypoint.py train --data_path=mnist.pt model_in model_out
    python entrypoint.py validate --data_path=mnist.pt model_in validation.json

It imports `fedn`, which need not be installed where Hansa runs it.
"""

import argparse
import collections

import torch
from fedn.utils.helpers.helpers import get_helper, save_metadata, save_metrics

HELPER = get_helper("pytorchhelper")


def compiled():
    """Return the network: 784 pixels, two hidden layers, the logarithms of ten probabilities."""
    return torch.nn.Sequential(
        torch.nn.Flatten(),
        torch.nn.Linear(784, 64),
        torch.nn.ReLU(),
        torch.nn.Linear(64, 32),
        torch.nn.ReLU(),
        torch.nn.Linear(32, 10),
        torch.nn.LogSoftmax(dim=1),
    )


def load_data(path, part):
    """Return images from 0 to 1 and labels of a part, train or test."""
    data = torch.load(path, weights_only=True)
    return data[f"x_{part}"].float() / 255, data[f"y_{part}"]


def save_model(model, path):
    """Write a model's tensors by name."""
    HELPER.save({name: tensor.numpy() for name, tensor in model.state_dict().items()}, path)


def load_model(path):
    """Read a model's tensors by name."""
    arrays = HELPER.load(path)
    model = compiled()
    model.load_state_dict(
        collections.OrderedDict((name, torch.tensor(arrays[name])) for name in arrays)
    )
    return model


def init_seed(path="../seed.npz"):
    """Write the model that training starts from."""
    torch.manual_seed(2024)
    save_model(compiled(), path)


def train(given):
    """Train, and say from how many examples."""
    x, y = load_data(given.data_path, "train")
    model = load_model(given.model_in)
    optimizer = torch.optim.SGD(model.parameters(), lr=given.lr)
    loss = torch.nn.NLLLoss()
    for _ in range(given.epochs):
        for at in range(0, len(x), given.batch_size):
            optimizer.zero_grad()
            batch = slice(at, at + given.batch_size)
            loss(model(x[batch]), y[batch]).backward()
            optimizer.step()
    told = {"num_examples": len(x), "batch_size": given.batch_size, "epochs": given.epochs}
    save_metadata({**told, "lr": given.lr}, given.out)
    save_model(model, given.out)


def measured(model, data_path, part):
    """Return loss and accuracy on a part."""
    x, y = load_data(data_path, part)
    with torch.no_grad():
        likely = model(x)
    loss = torch.nn.functional.nll_loss(likely, y)
    return loss.item(), (likely.argmax(1) == y).float().mean().item()


def validate(given):
    """Measure on both parts, and write a report."""
    model = load_model(given.model_in)
    model.eval()
    training_loss, training_accuracy = measured(model, given.data_path, "train")
    test_loss, test_accuracy = measured(model, given.data_path, "test")
    report = {
        "training_loss": training_loss,
        "training_accuracy": training_accuracy,
        "test_loss": test_loss,
        "test_accuracy": test_accuracy,
    }
    save_metrics(report, given.out)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    tasks = parser.add_subparsers(dest="task", required=True)
    tasks.add_parser("init_seed")
    for task in ("train", "validate"):
        words = tasks.add_parser(task)
        words.add_argument("--data_path", required=True)
        words.add_argument("--batch_size", type=int, default=32)
        words.add_argument("--epochs", type=int, default=2)
        words.add_argument("--lr", type=float, default=0.1)
        words.add_argument("model_in")
        words.add_argument("out")
    given = parser.parse_args()
    if given.task == "init_seed":
        init_seed()
    else:
        {"train": train, "validate": validate}[given.task](given)
