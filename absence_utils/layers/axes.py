"""Which axis of a value holds the channels, and which tokens are places, followed through the calls of a pass.

Calls that make channels say where they put them: a convolution second, a linear layer last. What keeps the shape keeps
the axis; what only moves values about (permutations, reshapes) moves it along, which the strides of a contiguous
tensor show. Where two inputs disagree, the axis is unknown, and is found or asked for elsewhere.
"""

from __future__ import annotations

from torch import Tensor

from .recording import Call, Value

_SECOND = {f"conv{n}d" for n in (1, 2, 3)} | {f"conv_transpose{n}d" for n in (1, 2, 3)} | {"group_norm"}
_LAST = {"linear", "multi_head_attention_forward", "_transformer_encoder_layer_fwd"}
_NEW_ORDER = {"einsum", "tensordot", "matmul", "bmm", "mm", "addmm", "baddbmm", "stack", "kron", "outer"}


def describe(value: Value) -> None:
    """Fill the channel axis and the grid of a new value from what it was made of."""
    call = value.call
    if call is None:
        value.channel = 1 if value.tensor.ndim > 2 else None
        return
    name, tensor = getattr(call.function, "__name__", ""), value.tensor
    moved = _moved(call, value) if len(call.reads) == 1 and not call.changed else None
    if name in _SECOND:
        value.channel = 1
    elif name in _LAST or name in ("matmul", "__matmul__") and _by_weights(call):
        value.channel = tensor.ndim - 1
    elif name == "layer_norm":
        value.channel = _kept(value)
        if value.channel is None and len(call.leaves) > 1 and tensor.ndim == 3:
            value.channel = 2
    elif moved is not None:
        value.channel = moved
    elif name not in _NEW_ORDER:
        value.channel = _kept(value)
    value.grid = _grid(call, value)


def _by_weights(call: Call) -> bool:
    return 1 not in call.reads and any(tensor.ndim == 2 for tensor in call.constants)


def _kept(value: Value) -> int | None:
    axes = {read.channel for read in value.reads if read.tensor.ndim == value.tensor.ndim > 2} - {None}
    return axes.pop() if len(axes) == 1 else None


def _moved(call: Call, value: Value) -> int | None:
    """The channel axis after a call that only rearranges memory: the axis that has its stride."""
    (read,) = call.reads.values()
    before, after, axis = read.tensor, value.tensor, read.channel
    if axis is None or after.untyped_storage().data_ptr() != before.untyped_storage().data_ptr():
        return None
    return _axis_with_stride(after, before.stride(axis), before.shape[axis])


def _axis_with_stride(tensor: Tensor, stride: int, size: int) -> int | None:
    axes = [
        axis
        for axis in range(tensor.ndim)
        if tensor.stride(axis) == stride and 1 < tensor.shape[axis] <= size
    ]
    return axes[0] if len(axes) == 1 else None


def _grid(call: Call, value: Value) -> tuple[int, int, int] | None:
    """(height, width, first token) of the map that a sequence of tokens was made from."""
    shape, tensor = value.tensor.shape, value.tensor
    if tensor.ndim != 3:
        return None
    for place, read in call.reads.items():
        before = read.tensor
        if before.ndim == 4 and read.channel is not None and value.channel is not None:
            space = [n for axis, n in enumerate(before.shape) if axis not in (0, read.channel)]
            if len(space) == 2 and space[0] * space[1] in shape and before.numel() == tensor.numel():
                return space[0], space[1], 0
        if read.grid is not None and before.ndim == 3:
            if before.shape == shape or sorted(before.shape) == sorted(shape):
                return read.grid
            if getattr(call.function, "__name__", "") in ("cat", "concat", "concatenate"):
                axis = next(axis for axis in range(3) if before.shape[axis] != shape[axis])
                earlier = [leaf for leaf in call.leaves[:place] if isinstance(leaf, Tensor)]
                return *read.grid[:2], read.grid[2] + sum(leaf.shape[axis] for leaf in earlier)
            # a linear layer changes the channels and keeps the tokens
            if value.channel is not None and read.channel == value.channel:
                rest = [axis for axis in range(3) if axis != value.channel]
                if all(before.shape[axis] == shape[axis] for axis in rest):
                    return read.grid
    return None
