"""An ordinary PyTorch training script; the marked lines are all that Hansa needs.

`python train.py` alone still trains, on all data and for one round.
"""

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import hansa

data = hansa.local_data()  # this client's part of the plan's data
x, y = torch.from_numpy(data.x), torch.from_numpy(data.y)
loader = DataLoader(TensorDataset(x, y), batch_size=32, shuffle=True)
net = nn.Sequential(nn.Flatten(), nn.Linear(784, 64), nn.ReLU(), nn.Linear(64, 10))
optimizer = torch.optim.SGD(net.parameters(), lr=0.1)


def train():
    total = 0.0
    for inputs, labels in loader:
        optimizer.zero_grad()
        loss = F.cross_entropy(net(inputs), labels)
        loss.backward()
        optimizer.step()
        total += loss.item() * len(labels)
    return total / len(data.y)


@torch.no_grad()
def evaluate(params, data):
    net.load_state_dict(params)
    logits = net(torch.from_numpy(data.x))
    return {"accuracy": (logits.argmax(1) == torch.from_numpy(data.y)).float().mean().item()}


for task in hansa.tasks(net.state_dict(), evaluate=evaluate):  # 1
    net.load_state_dict(task.params)  # 2
    loss = train()
    task.send(net.state_dict(), examples=len(loader.dataset), loss=loss)  # 3
