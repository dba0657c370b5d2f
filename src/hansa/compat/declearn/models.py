"""What stands in for declearn's models, in the process that runs one.

Each gives its arrays, the gradient of the mean loss of a batch at its weights, and scores.  The
weights of a step are one flat vector; what is not trained, such as BatchNorm's statistics, travels
with the model and is averaged, so that the final model can be evaluated.
"""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from typing import Any, NoReturn

import numpy as np

from hansa.errors import LearnerError

_LOSSES = (
    "hinge", "log_loss", "modified_huber", "squared_hinge", "perceptron", "squared_error", "huber",
    "epsilon_insensitive", "squared_epsilon_insensitive",
)  # fmt: skip


class Model(ABC):
    """A model of declearn's."""

    def initialize(self, shape: list[int], classes: int) -> None:  # noqa: B027 - most need nothing
        """Make what depends on the data: the shape of one example and the number of classes."""

    @property
    @abstractmethod
    def trained(self) -> dict[str, np.ndarray]:
        """The arrays that steps change; views where that is possible."""

    @abstractmethod
    def arrays(self) -> dict[str, np.ndarray]:
        """Return all arrays that travel."""

    @abstractmethod
    def load(self, arrays: dict[str, np.ndarray]) -> None:
        """Take all arrays, as `arrays` gives them."""

    @abstractmethod
    def gradient(self, x: np.ndarray, y: np.ndarray) -> tuple[dict[str, np.ndarray], float]:
        """Return the gradient of a batch's mean loss by array's name, and that loss."""

    @abstractmethod
    def scores(self, x: np.ndarray) -> np.ndarray:
        """Return what the model says of rows, [n] or [n, outputs]."""

    @abstractmethod
    def losses(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Return the loss of each row, penalties not counted."""


class TorchModel(Model):
    """A torch module with a loss.

    Args:
      model: a torch.nn.Module.
      loss: another, of predictions and targets; its reduction is taken from it.
    """

    def __init__(self, model: Any, loss: Any) -> None:
        self._torch = importlib.import_module("torch")
        for name, value in (("model", model), ("loss", loss)):
            if not isinstance(value, self._torch.nn.Module):
                raise TypeError(f"{name!r} of TorchModel is {type(value).__name__}, no nn.Module")
        loss.reduction = "none"
        self._module, self._loss = getattr(model, "_orig_mod", model), loss
        self._weights = {k: p for k, p in self._module.named_parameters() if p.requires_grad}

    @property
    def trained(self) -> dict[str, np.ndarray]:
        """The arrays that steps change."""
        return {name: weight.detach().numpy() for name, weight in self._weights.items()}

    def arrays(self) -> dict[str, np.ndarray]:
        """Return all arrays that travel."""
        state = self._module.state_dict()
        return {name: tensor.detach().numpy().copy() for name, tensor in state.items()}

    def load(self, arrays: dict[str, np.ndarray]) -> None:
        """Take all arrays."""
        tensors = {name: self._torch.from_numpy(np.array(a)) for name, a in arrays.items()}
        self._module.load_state_dict(tensors)

    def gradient(self, x: np.ndarray, y: np.ndarray) -> tuple[dict[str, np.ndarray], float]:
        """Return the gradient of a batch's mean loss, and that loss."""
        self._module.train()
        self._module.zero_grad()
        loss = self._loss(self._module(self._tensor(x)), self._tensor(y)).mean()
        loss.backward()
        gradients = {
            name: np.zeros(tuple(weight.shape), weight.detach().numpy().dtype)
            if weight.grad is None
            else weight.grad.detach().numpy().copy()
            for name, weight in self._weights.items()
        }
        return gradients, float(loss.detach())

    def scores(self, x: np.ndarray) -> np.ndarray:
        """Return what the model says of rows; logits of two classes as probabilities."""
        said = self._said(x)
        if isinstance(self._loss, self._torch.nn.BCEWithLogitsLoss):
            said = said.sigmoid()
        return np.asarray(said.numpy())

    def losses(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Return the loss of each row; of several outputs their sum, as declearn gives it."""
        said = self._said(x)
        with self._torch.no_grad():
            losses: np.ndarray = self._loss(said, self._tensor(y)).numpy()
        if losses.size % len(x):  # a loss that takes its mean itself
            return np.full(len(x), losses.mean())
        sums: np.ndarray = losses.reshape(len(x), -1).sum(axis=1)
        return sums

    def _said(self, x: np.ndarray) -> Any:
        self._module.eval()
        with self._torch.no_grad():
            return self._module(self._tensor(x))

    def _tensor(self, rows: np.ndarray) -> Any:
        """Return rows as a tensor, floats in the precision of the weights."""
        tensor = self._torch.from_numpy(np.ascontiguousarray(rows))
        first = next(iter(self._weights.values()), tensor)
        return tensor.to(first.dtype) if tensor.is_floating_point() else tensor


class SklearnSGDModel(Model):
    """A linear model with the losses and penalties of scikit-learn's SGDClassifier and Regressor.

    Args:
      model: one of these two, not fitted; only its parameters are taken.
      dtype: of the weights.
    """

    def __init__(self, model: Any, dtype: Any = "float64") -> None:
        kind = {"SGDClassifier": "classifier", "SGDRegressor": "regressor"}.get(
            type(model).__name__
        )
        if kind is None or hasattr(model, "coef_"):
            raise TypeError("SklearnSGDModel takes an SGDClassifier or SGDRegressor, not fitted")
        if getattr(model, "class_weight", None) is not None:
            raise ValueError("class_weight has no counterpart; leave it out of SGDClassifier")
        self._set(kind, dtype, **model.get_params())

    @classmethod
    def from_parameters(
        cls,
        kind: str,
        loss: str | None = None,
        penalty: str | None = "l2",
        alpha: float = 1e-4,
        l1_ratio: float = 0.15,
        epsilon: float = 0.1,
        fit_intercept: bool = True,
        n_jobs: int | None = None,
        dtype: Any = "float64",
    ) -> SklearnSGDModel:
        """Build one from the parameters themselves."""
        if kind not in ("classifier", "regressor"):
            raise ValueError(f"kind is {kind!r}; valid: classifier, regressor")
        made = cls.__new__(cls)
        made._set(
            kind, dtype, loss=loss or ("hinge" if kind == "classifier" else "squared_error"),
            penalty=penalty, alpha=alpha, l1_ratio=l1_ratio, epsilon=epsilon,
            fit_intercept=fit_intercept,
        )  # fmt: skip
        return made

    def _set(self, kind: str, dtype: Any, **told: Any) -> None:
        regression = ("squared_error", "huber", _LOSSES[-2], _LOSSES[-1])
        valid = _LOSSES if kind == "classifier" else regression
        if told["loss"] not in valid:
            raise ValueError(f"loss is {told['loss']!r}; of a {kind}: {', '.join(valid)}")
        shares = {None: 0.0, "none": 0.0, "l2": 0.0, "l1": 1.0, "elasticnet": told["l1_ratio"]}
        if told["penalty"] not in shares:
            raise ValueError(f"penalty is {told['penalty']!r}; valid: none, l1, l2, elasticnet")
        self._classifier, self._dtype, self._loss = kind == "classifier", dtype, told["loss"]
        strength = 0.0 if told["penalty"] in (None, "none") else told["alpha"]
        self._l1 = strength * shares[told["penalty"]]
        self._l2 = strength - self._l1
        self._epsilon, self._intercept = told["epsilon"], bool(told["fit_intercept"])
        self._arrays: dict[str, np.ndarray] = {}

    def initialize(self, shape: list[int], classes: int) -> None:
        """Begin with zeros, as scikit-learn does."""
        if len(shape) != 1:
            raise LearnerError(
                "learner-data",
                f"One example has shape {shape}, and SklearnSGDModel takes a row of numbers.",
                "Flatten the rows of the data set.",
            )
        if self._classifier and classes < 2:
            raise LearnerError(
                "learner-data",
                "SklearnSGDModel is a classifier, and the targets are no labels of two classes.",
                "Store labels as integers from 0 up, or use a regressor.",
            )
        outputs = classes if self._classifier and classes > 2 else 1
        coef = (outputs, shape[0]) if self._classifier else (shape[0],)
        self._arrays = {
            "intercept": np.zeros(outputs, self._dtype),
            "coef": np.zeros(coef, self._dtype),
        }

    @property
    def trained(self) -> dict[str, np.ndarray]:
        """The arrays that steps change."""
        return self._arrays

    def arrays(self) -> dict[str, np.ndarray]:
        """Return all arrays that travel."""
        return {name: array.copy() for name, array in self._arrays.items()}

    def load(self, arrays: dict[str, np.ndarray]) -> None:
        """Take all arrays."""
        for name, array in self._arrays.items():
            array[...] = arrays[name]

    def gradient(self, x: np.ndarray, y: np.ndarray) -> tuple[dict[str, np.ndarray], float]:
        """Return the mean of what single steps of rate 1 would take away, one per row.

        That is the gradient where there is no L1 penalty; scikit-learn's steps cut weights at 0.
        """
        x = x.astype(self._dtype)
        coef = np.atleast_2d(self._arrays["coef"])
        losses, slopes = self._loss_and_slope(x, y)
        taken = np.empty_like(coef)
        for row, (weights, slope) in enumerate(zip(coef, slopes.T, strict=True)):
            if not self._l1:
                taken[row] = self._l2 * weights + slope @ x / len(x)
                continue
            after = weights * max(0.0, 1 - self._l2) - slope[:, None] * x
            after = np.sign(after) * np.maximum(np.abs(after) - self._l1, 0)
            taken[row] = weights - after.mean(axis=0)
        intercept = slopes.mean(axis=0) * self._intercept
        return {
            "intercept": intercept.astype(self._dtype),
            "coef": taken.reshape(self._arrays["coef"].shape),
        }, float(losses.mean())

    def scores(self, x: np.ndarray) -> np.ndarray:
        """Return what the model says of rows."""
        scores = self._decisions(x.astype(self._dtype))
        if scores.shape[1] > 1:
            return scores
        # Of two classes: between 0 and 1, and 1/2 where the classes meet.
        return 0.5 + 0.5 * np.tanh(0.5 * scores[:, 0]) if self._classifier else scores[:, 0]

    def losses(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Return the loss of each row."""
        losses: np.ndarray = self._loss_and_slope(x.astype(self._dtype), y)[0].sum(axis=1)
        return losses

    def _decisions(self, x: np.ndarray) -> np.ndarray:
        decided: np.ndarray = x @ np.atleast_2d(self._arrays["coef"]).T + self._arrays["intercept"]
        return decided

    def _loss_and_slope(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return losses and their derivatives by the decision, [n, outputs] each."""
        p = self._decisions(x)
        if not self._classifier:
            target = y.reshape(len(y), 1).astype(self._dtype)
        elif p.shape[1] == 1:
            target = np.where(y.reshape(-1, 1) == 1, 1.0, -1.0).astype(self._dtype)
        else:
            target = np.where(y.reshape(-1, 1) == np.arange(p.shape[1]), 1.0, -1.0)
        return self._measured(p, target)

    def _measured(self, p: np.ndarray, t: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return losses and slopes; scikit-learn's user guide, section 1.5.8.1, has the table."""
        margin, error, e = t * p, p - t, self._epsilon
        beyond = np.abs(error) - e
        match self._loss:
            case "log_loss":
                return np.logaddexp(0, -margin), -t * 0.5 * (1 - np.tanh(0.5 * margin))
            case "hinge":
                return np.maximum(0, 1 - margin), -t * (margin <= 1)
            case "perceptron":
                return np.maximum(0, -margin), -t * (margin <= 0)
            case "squared_hinge":
                short = np.maximum(0, 1 - margin)
                return short**2, -2 * t * short
            case "modified_huber":
                short = np.maximum(0, 1 - margin)
                far = margin < -1
                return np.where(far, -4 * margin, short**2), -t * np.where(far, 4, 2 * short)
            case "squared_error":
                return 0.5 * error**2, error
            case "huber":
                inside = beyond <= 0
                return (
                    np.where(inside, 0.5 * error**2, e * np.abs(error) - 0.5 * e**2),
                    np.where(inside, error, e * np.sign(error)),
                )
            case "epsilon_insensitive":
                return np.maximum(0, beyond), np.sign(error) * (beyond > 0)
            case _:
                short = np.maximum(0, beyond)
                return short**2, 2 * np.sign(error) * short


def not_here(name: str) -> type[Model]:
    """Return a class that says, when it is made, that its framework has no counterpart."""

    def refuse(self: Any, *args: Any, **options: Any) -> NoReturn:
        raise LearnerError(
            "learner-module",
            f"The model file makes a {name}, for which Hansa has no stand-in.",
            "Write the model as a TorchModel or SklearnSGDModel, or see docs/howto/models.md.",
        )

    return type(name, (Model,), {"__init__": refuse, "__new__": lambda cls, *a, **k: refuse(cls)})
