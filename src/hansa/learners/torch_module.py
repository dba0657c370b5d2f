"""A torch module seen as vectors: its parameters and gradients are views of flat tensors.

    x  ->  one optimizer step is one operation on [D], whatever the number of layers
    |      parameters of the vector's own dtype share its memory
    +--->  half-precision ones are rounded copies of it: x stays in float32 ("master weights")

A parameter that occurs under two names in the state_dict ("tied") is one tensor of the module and
two equal stretches of the vector, so that a saved model has both names.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from hansa.errors import LearnerError
from hansa.learners.learner import check_constants
from hansa.learners.optional import optional
from hansa.learners.torch_arrays import dtype_of, to_array, to_tensor
from hansa.params import Layout, Params
from hansa.params.dtypes import width
from hansa.params.model import ModelLayout, zeros

if TYPE_CHECKING:
    import torch
else:
    torch = optional("torch")

Tensors = Mapping[str, "torch.Tensor"]


class _Rounded(NamedTuple):
    """A stretch of the vector whose tensors have another dtype, and their flat memory."""

    part: slice
    values: torch.Tensor
    gradient: torch.Tensor


class _View(NamedTuple):
    """One parameter of the module, and where it and its gradient belong."""

    parameter: torch.nn.Parameter
    values: torch.Tensor
    gradient: torch.Tensor


class FlatModule:
    """A module with vectors in front of it.

    Its buffers, its non-persistent buffers and its parameters are set anew by every `load`; plain
    Python attributes that a module changes while it runs are its own affair.

    Args:
      module: taken over; its parameters point elsewhere afterwards.
      device: where it lives.

    Raises:
      LearnerError: the module cannot be trained this way, and why.
    """

    def __init__(self, module: torch.nn.Module, device: torch.device) -> None:
        self.module, self.device = module, device
        _check_strided(dict(module.named_parameters()) | dict(module.named_buffers()))
        module.to(device)
        layout = _layout(module)
        self.layout = layout.holding(self._read(layout.constants))
        trained = self.layout.trained
        dtype = torch.float64 if "F64" in trained.dtypes else torch.float32
        self.x = torch.zeros(trained.float_size, dtype=dtype, device=device)
        self.g = torch.zeros_like(self.x)
        self._rounded: list[_Rounded] = []
        self._views: list[_View] = []
        self._tied: list[tuple[slice, slice]] = []
        self._attach(dict(module.named_parameters(remove_duplicate=False)))
        state = module.state_dict()
        hidden = {n: b for n, b in module.named_buffers() if n not in state}
        self._hidden = {name: buffer.clone() for name, buffer in hidden.items()}

    def params(self) -> Params:
        """Return the whole model."""
        whole = self.layout.join(to_array(self.x).copy(), self.read_buffers())
        for name in self.layout.layout.keys() - self.layout.trained.keys():
            whole[name][...] = to_array(_tensors(self.module)[name])  # beyond 2^53 to the bit
        return whole

    def load(self, x: torch.Tensor, buffers: np.ndarray, whole: Params | None = None) -> None:
        """Set all there is of the model; its constants are those of the layout, or of `whole`."""
        self.x.copy_(x)
        self.push()
        for name, initial in self._hidden.items():
            owner, _, leaf = name.rpartition(".")
            setattr(self.module.get_submodule(owner), leaf, initial.clone())
        if self.layout.all_trained:
            return
        tensors, fixed = _tensors(self.module), self.layout.fixed if whole is None else whole
        for name, array in self.layout.buffer_params(buffers).items():
            tensors[name].copy_(to_tensor(array))
        for name in self.layout.constants.names:
            # Training that was refused may have left it unfrozen.
            tensors[name].requires_grad_(False).copy_(to_tensor(fixed[name]))

    def read_buffers(self) -> np.ndarray:
        """Return the buffers as they are now, [B] float64."""
        if not self.layout.buffers.names:
            return np.empty(0)
        rest = self._read(self.layout.buffers)
        return np.concatenate([rest.flat(d).astype(np.float64) for d in rest.layout.dtypes])

    def backward(self, loss: torch.Tensor) -> None:
        """Set `g` to the gradient of a loss; a parameter the loss does not use has gradient 0."""
        self.g.zero_()
        for rounded in self._rounded:
            rounded.gradient.zero_()
        loss.backward()
        for part, _, gradient in self._rounded:
            self.g[part].copy_(gradient)
        for first, second in self._tied:
            self.g[second].copy_(self.g[first])

    def push(self) -> None:
        """Round `x` into the tensors that do not share its memory."""
        for part, values, _ in self._rounded:
            values.copy_(self.x[part])

    def push_gradient(self) -> None:
        """Round `g` into the gradients that do not share its memory."""
        for part, _, gradient in self._rounded:
            gradient.copy_(self.g[part])

    def pull(self) -> None:
        """Read `x` back from the tensors, after an optimizer that works on them."""
        for part, values, _ in self._rounded:
            self.x[part].copy_(values)
        for first, second in self._tied:
            self.x[second].copy_(self.x[first])

    def check(self) -> None:
        """Refuse to go on when the user's code has put other tensors in the place of our views.

        Raises:
          LearnerError: what was trained or differentiated is not what would be sent.
        """
        for p, values, gradient in self._views:
            if p.grad is not gradient or p.data_ptr() != values.data_ptr():
                raise LearnerError(
                    "learner-gradient",
                    "The training code replaced a parameter or its gradient by a new tensor.",
                    "In loss() and optimizer(), call neither zero_grad() nor to(), and change "
                    "parameters in place.",
                )
        if not self.layout.constants.names:
            return
        tensors = _tensors(self.module)
        for name in self.layout.constants.names:
            if tensors[name].requires_grad:
                raise _unfrozen(name)
        check_constants(self.layout, self._read(self.layout.constants))

    def _read(self, layout: Layout) -> Params:
        """Return some tensors of the module that are no part of the vector, as they are now."""
        found, tensors = zeros(layout), _tensors(self.module)
        for name, array in found.items():
            array[...] = to_array(tensors[name])
        return found

    def _attach(self, parameters: Tensors) -> None:
        """Move the parameters into flat memory and point them there."""
        layout, placed = self.layout.trained, dict[int, slice]()
        for dtype, (start, stop) in layout.float_spans().items():
            values, gradient = self.x[start:stop], self.g[start:stop]
            names = [spec.name for spec in layout.specs if spec.dtype == dtype]
            if parameters[names[0]].dtype is not self.x.dtype:
                like = parameters[names[0]].dtype
                values, gradient = values.to(like), gradient.to(like)
                self._rounded.append(_Rounded(slice(start, stop), values, gradient))
            for name in names:
                first = (layout[name].start - layout.span(dtype)[0]) // width(dtype)
                p = parameters[name]
                part = slice(first, first + p.numel())
                here = slice(start + part.start, start + part.stop)
                self.x[here].copy_(p.detach().flatten())
                if id(p) in placed:
                    self._tied.append((placed[id(p)], here))
                    continue
                placed[id(p)] = here
                view = _View(p, values[part].view(p.shape), gradient[part].view(p.shape))
                p.data, p.grad = view.values, view.gradient
                self._views.append(view)
        self.push()


def _layout(module: torch.nn.Module) -> ModelLayout:
    """Return names, dtypes and shapes in the order of the state_dict."""
    tensors, names = _tensors(module), list(module.state_dict())
    if unknown := [name for name in names if name not in tensors]:
        raise _unusable(
            f"its state_dict() has {unknown[0]!r}, which is neither a parameter nor a buffer",
            "Keep such state in a buffer, or outside of the state_dict.",
        )
    needs_grad = {n for n, p in tensors.items() if p.requires_grad}
    if lost := sorted(needs_grad - set(names)):
        raise _unusable(
            f"its parameter {lost[0]!r} is not in its state_dict(), so it would never be sent",
            "Put it into the state_dict, or set requires_grad to False.",
        )
    if not needs_grad:
        raise _unusable(
            "none of its parameters requires a gradient", "Unfreeze what is to be trained."
        )
    described = [(name, _dtype(name, tensors[name]), tuple(tensors[name].shape)) for name in names]
    buffers = dict(module.named_buffers(remove_duplicate=False))
    rest = [name for name in names if name not in needs_grad]
    frozen = [name for name in rest if name not in buffers]
    return ModelLayout(Layout.of(described), [name for name in rest if name in buffers], frozen)


def _tensors(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Return parameters and buffers as they are now: a module may assign new buffers."""
    parameters = dict(module.named_parameters(remove_duplicate=False))
    return parameters | dict(module.named_buffers(remove_duplicate=False))


def _check_strided(tensors: Tensors) -> None:
    for name, tensor in tensors.items():
        if torch.nn.parameter.is_lazy(tensor):
            raise _unusable(
                f"{name!r} has no shape yet",
                "Give lazy layers their sizes, or call the model once in model().",
            )
        if tensor.layout is not torch.strided:
            raise _unusable(
                f"{name!r} is stored as {tensor.layout}", "Use dense parameters and buffers."
            )
        _dtype(name, tensor)


def _dtype(name: str, tensor: torch.Tensor) -> str:
    dtype = dtype_of(tensor)
    if dtype is None:
        raise _unusable(
            f"{name!r} has dtype {tensor.dtype}",
            "Use floats, integers or booleans; store complex numbers as two real tensors.",
        )
    return dtype


def _unfrozen(name: str) -> LearnerError:
    return LearnerError(
        "learner-constant",
        f"The training code has unfrozen {name!r}, which was frozen when the run began, so that "
        "updates do not have it. The update was not used.",
        "Unfreeze it in model(), and start a new run from this one's model: "
        "hansa run --new --from RUN",
    )


def _unusable(reason: str, hint: str) -> LearnerError:
    return LearnerError("learner-model", f"model() cannot be trained: {reason}.", hint)
