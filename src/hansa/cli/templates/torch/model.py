"""A small CNN in plain PyTorch.  Change it to your own model; no base class needed."""

import torch.nn.functional as F
from torch import nn


class Net(nn.Module):
    """Two convolutions and two fully connected layers, for 28 x 28 grey images."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 16, 5, padding=2)
        self.conv2 = nn.Conv2d(16, 32, 5, padding=2)
        self.fc1 = nn.Linear(32 * 7 * 7, 64)
        self.fc2 = nn.Linear(64, 10)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.conv1(x.unsqueeze(1))), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        return self.fc2(F.relu(self.fc1(x.flatten(1))))


def model():
    """Return the model; its parameters are the seed model."""
    return Net()


def loss(model, batch):
    """Return the mean loss of a batch."""
    x, y = batch
    return F.cross_entropy(model(x), y)


def metrics(model, batch):
    """Return one value per example; Hansa averages them exactly over all clients."""
    x, y = batch
    logits = model(x)
    return {
        "loss": F.cross_entropy(logits, y, reduction="none"),
        "accuracy": (logits.argmax(1) == y).float(),
    }


def predict(model, batch):
    """Return probabilities and targets; asked for metrics by name: evaluate.metrics = ["f1"]."""
    x, y = batch
    return model(x).softmax(1), y
