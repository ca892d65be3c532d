"""Where the residual branches of a block end: the parameters at zero leave only what came in.

One forward of the block is watched. Its trunk is what comes unchanged from its input, however it
is laid out: through dropout, windows, permutations. Everything else may have ends: the last
parameters with which it is zero (weight and bias of a layer, gain and shift of a norm, a layer
scale). Whatever keeps zeros at zero passes ends on; where a value meets the trunk in a sum, a
branch ends.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from progtrain.growth.newborn import evaluate
from progtrain.growth.trace import tensors_in

# Of relu it is tried: a trunk that another relu has made passes it unchanged.
_LAYOUT = (
    "view reshape flatten unflatten permute transpose swapaxes swapdims movedim moveaxis T mT t "
    "squeeze unsqueeze contiguous clone roll dropout dropout_ dropout1d dropout2d feature_dropout "
    "identity to float double type_as view_as reshape_as pad relu relu_"
)
_HOMOGENEOUS = (
    "leaky_relu leaky_relu_ prelu neg abs mean sum max_pool2d avg_pool2d adaptive_avg_pool2d "
    "interpolate chunk split unbind tensor_split __getitem__ select narrow expand repeat cat stack "
    "concat flip pixel_shuffle pixel_unshuffle boolean_dispatch div div_ true_divide __truediv__"
)
_BENDING = (
    "relu6 gelu silu silu_ tanh hardtanh hardswish hardswish_ elu mish selu square sqrt"  # f(0) = 0
)
_JOINING = ("cat", "stack", "concat")
_NORMS = {"batch_norm": 3, "instance_norm": 3, "layer_norm": 2, "group_norm": 2, "rms_norm": 2}
_PRODUCTS = (
    "mul mul_ multiply __mul__ __rmul__ __imul__ matmul __matmul__ bmm einsum "
    "scaled_dot_product_attention"
)
_SUMS = "add add_ __add__ __radd__ __iadd__"
_LAYERS = "linear conv1d conv2d conv3d conv_transpose1d conv_transpose2d"


def branch_ends(
    block: nn.Module, x: Tensor, *others: Any, homogeneous: bool = False, **named: Any
) -> list[nn.Parameter]:
    """The ends of all branches of `block`, called as given; none where it has no branches.

    `homogeneous` ones alone: a factor on such an end is that factor on its whole branch.
    """
    walk = _Walk(x := x.clone(), homogeneous)
    with walk:
        evaluate(block, x, *others, **named)
    return list({id(end): end for end in walk.found}.values())


class _Walk(TorchFunctionMode):
    """Follows the trunk, and the ends of everything else."""

    def __init__(self, x: Tensor, homogeneous: bool) -> None:
        super().__init__()
        bending = "" if homogeneous else _BENDING
        self.passing = {*_LAYOUT.split(), *_HOMOGENEOUS.split(), *bending.split()}
        self.trunk = {id(x)}
        self.ends: dict[int, list[nn.Parameter]] = {}
        self.found: list[nn.Parameter] = []
        self._alive: list[Any] = [x]  # ids stay unique while the tensors live

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        name = func.__self__.__name__ if name == "__get__" else name
        trunk, ends = self._judge(name, args, kwargs)
        out = func(*args, **kwargs)
        for made in tensors_in(out):
            self._alive.append(made)
            self._note(made, trunk, ends)
        return out

    def _note(self, made: Tensor, trunk: bool, ends: list[nn.Parameter]) -> None:
        """What is known of a result; of one in place, what was known before is forgotten."""
        (self.trunk.add if trunk else self.trunk.discard)(id(made))
        self.ends[id(made)] = [] if trunk else ends

    def _judge(self, name: str, args: Any, kwargs: Any) -> tuple[bool, list[nn.Parameter]]:
        """Whether the result is the trunk; if not, what makes it zero."""
        given = [*args, *kwargs.values()]
        if name in _SUMS.split():
            return self._sum([t for t in given if isinstance(t, Tensor)])
        if name == "multi_head_attention_forward":
            return False, self._all(args[11:13])
        if name in _LAYERS.split() or name in _NORMS:
            at = _NORMS.get(name, 1)
            weight = args[at] if len(args) > at else kwargs.get("weight")
            bias = args[at + 1] if len(args) > at + 1 else kwargs.get("bias")
            return False, self._all([weight, bias])
        if name in _PRODUCTS.split():
            return False, self._product([t for item in given for t in tensors_in(item)])
        if name in _LAYOUT.split() and any(id(item) in self.trunk for item in given[:1]):
            return True, []
        if name in self.passing:
            first = tensors_in(given[0])
            return False, self._all(first if name in _JOINING else first[:1])
        return False, []

    def _of(self, value: Tensor) -> list[nn.Parameter]:
        return [value] if isinstance(value, nn.Parameter) else self.ends.get(id(value), [])

    def _all(self, values: Iterable[object]) -> list[nn.Parameter]:
        """What makes all tensors among `values` zero."""
        each = [self._of(value) for value in values if isinstance(value, Tensor)]
        return [end for ends in each for end in ends] if all(each) else []

    def _product(self, factors: list[Tensor]) -> list[nn.Parameter]:
        """One factor is enough; of a layer scale it is the scale, which is the last."""
        scales = [f for f in factors if self._is_scale(f)]
        return next((ends for f in (*scales, *factors) if (ends := self._of(f))), [])

    def _is_scale(self, factor: Tensor) -> bool:
        ends = self._of(factor)
        return len(ends) == 1 and ends[0].numel() == factor.numel()

    def _sum(self, terms: list[Tensor]) -> tuple[bool, list[nn.Parameter]]:
        if not any(id(term) in self.trunk for term in terms):
            return False, self._all(terms)
        branches = [term for term in terms if id(term) not in self.trunk]
        ends = self._all(branches)
        self.found += ends
        return bool(ends), []
