"""The MNIST CNN of McMahan et al. 2017, section 3: 1,663,370 parameters."""

import torch.nn.functional as F
from torch import nn


class CNN(nn.Module):
    """Two 5 x 5 convolutions (32, 64 channels) with 2 x 2 max pooling, 512 ReLU units, softmax."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 32, 5, padding=2)
        self.conv2 = nn.Conv2d(32, 64, 5, padding=2)
        self.fc1 = nn.Linear(64 * 7 * 7, 512)
        self.fc2 = nn.Linear(512, 10)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.conv1(x.unsqueeze(1))), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        return self.fc2(F.relu(self.fc1(x.flatten(1))))


def model():
    return CNN()


def loss(model, batch):
    x, y = batch
    return F.cross_entropy(model(x), y)


def metrics(model, batch):
    x, y = batch
    logits = model(x)
    return {
        "loss": F.cross_entropy(logits, y, reduction="none"),
        "accuracy": (logits.argmax(1) == y).float(),
    }
