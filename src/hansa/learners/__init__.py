"""The user's model and training code behind one protocol; frameworks are imported on demand."""

from hansa.learners.function import FunctionLearner, TrainContext
from hansa.learners.learner import ClientData, Hyper, Learner, LocalWork, Seed, Task
from hansa.learners.numpy import NumPyLearner
from hansa.learners.numpy_models import Perceptron

__all__ = [
    "ClientData",
    "FunctionLearner",
    "Hyper",
    "Learner",
    "LocalWork",
    "NumPyLearner",
    "Perceptron",
    "Seed",
    "Task",
    "TrainContext",
]
