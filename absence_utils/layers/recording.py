"""What a network computes in one pass: every call between tensors, and every tensor at every moment.

`torch.fx` cannot trace many networks and leaves its proxies in those it can. Here the network runs as it always
does, and a mode notes each call that PyTorch makes on its behalf (also inside autograd functions). In-place calls
give a tensor, and all that share its memory, a new value. Calls can be repeated with other values.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import TreeSpec, tree_flatten, tree_unflatten


@dataclass(eq=False)
class Value:
    """A tensor at one moment of a pass, computed from the images.

    Attributes:
        tensor: the tensor; its memory may hold a later value by now.
        number: in the order in which values were made.
        call: what made it, None for the images.
        reads: the values it was made from.
        shared: it was changed through another tensor that shares its memory.
        channel: its channel axis where the calls tell it, see `axes`.
        grid: for tokens (height, width, first token) of the map they were made from, see `axes`.
    """

    tensor: Tensor
    number: int
    call: Call | None = None
    reads: tuple[Value, ...] = ()
    shared: bool = False
    channel: int | None = None
    grid: tuple[int, int, int] | None = None


@dataclass(eq=False)
class Call:
    """One call on values.

    Attributes:
        function: what was called.
        occurrence: how many calls of the same function came before it.
        leaves, spec: its arguments, flattened.
        reads: number of the leaf -> the value it held.
        changed: the leaves that the call works on in place.
        made: its results; the leaves of what it returned, then what it changed.
        results: leaves of what it returned.
    """

    function: Callable
    occurrence: int
    leaves: list
    spec: TreeSpec
    reads: dict[int, Value]
    changed: tuple[int, ...]
    results: list = field(default_factory=list)
    made: list[Value] = field(default_factory=list)

    @property
    def constants(self) -> list[Tensor]:
        """Tensors among the arguments that do not depend on the images."""
        leaves = enumerate(self.leaves)
        return [leaf for place, leaf in leaves if isinstance(leaf, Tensor) and place not in self.reads]

    def repeat(self, given: dict[int, Tensor], leaves: list | None = None) -> tuple[list, list]:
        """Call again with other tensors at some leaves: (all arguments, leaves of the result).

        What the call changes in place and was not given is copied first. What is given may be more precise than what
        was recorded; the other arguments then follow.
        """
        leaves = list(self.leaves if leaves is None else leaves)
        for place, leaf in enumerate(leaves):
            if isinstance(leaf, Tensor) and leaf.is_floating_point() and given:
                leaves[place] = leaf.to(torch.promote_types(leaf.dtype, next(iter(given.values())).dtype))
        for place in self.changed:
            leaves[place] = leaves[place].clone()
        for place, tensor in given.items():
            leaves[place] = tensor
        args, kwargs = tree_unflatten(leaves, self.spec)
        return leaves, tree_flatten(self.function(*args, **kwargs))[0]

    def place_of(self, value: Value) -> tuple[str, int]:
        """Where one of its results is: ("result", leaf of what it returned) or ("argument", leaf)."""
        for place, leaf in enumerate(self.results):
            if leaf is value.tensor:
                return "result", place
        return "argument", next(place for place in self.changed if self.leaves[place] is value.tensor)

    def result_of(self, value: Value, given: dict[int, Tensor], leaves: list | None = None) -> Tensor:
        """One of its results, made anew from other tensors, which are left as they are."""
        kept = {place: x.clone() if place in self.changed else x for place, x in given.items()}
        arguments, results = self.repeat(kept, leaves)
        kind, place = self.place_of(value)
        return (results if kind == "result" else arguments)[place]


class Recorder(TorchFunctionMode):
    """While active, notes all calls on values that come from `images`. The tensors are kept alive.

    Args:
        images: what the network is given: the tensor itself.
        describe: called with each new value, fills what is known of its axes.
    """

    def __init__(self, images: Tensor, describe: Callable[[Value], None]):
        super().__init__()
        self.calls: list[Call] = []
        self.counts: Counter = Counter()
        self._describe, self._made = describe, 0
        self._current: dict[int, Value] = {}
        self._memory: dict[int, list[Value]] = {}  # address of the memory -> the tensors that live there
        self.images = self._new(images)

    def value_of(self, tensor) -> Value | None:
        """What a tensor holds now; None if no recorded call made it."""
        if not isinstance(tensor, Tensor):
            return None
        if id(tensor) in self._current:
            return self._current[id(tensor)]
        for value in reversed(self._memory.get(_address(tensor), [])):  # another object for the same memory
            if _same_memory(value.tensor, tensor):
                return self._current[id(value.tensor)]
        return None

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        occurrence = self.counts[func]
        self.counts[func] += 1
        leaves, spec = tree_flatten((args, kwargs))
        versions = [leaf._version if isinstance(leaf, Tensor) else None for leaf in leaves]
        reads = {place: value for place, leaf in enumerate(leaves) if (value := self.value_of(leaf))}
        out = func(*args, **kwargs)
        if reads:
            changed = tuple(
                place
                for place, leaf in enumerate(leaves)
                if isinstance(leaf, Tensor) and leaf._version != versions[place]
            )
            call = Call(func, occurrence, leaves, spec, reads, changed, tree_flatten(out)[0])
            self._note(call)
        return out

    def _note(self, call: Call) -> None:
        returned = [leaf for leaf in call.results if isinstance(leaf, Tensor)]
        known = {id(leaf) for leaf in call.leaves}
        reads = tuple(call.reads.values())
        for leaf in returned:
            if id(leaf) not in known:
                call.made.append(self._new(leaf, call, reads))
        for place in call.changed:
            leaf = call.leaves[place]
            others = [value.tensor for value in self._memory.get(_address(leaf), [])]
            for tensor in dict.fromkeys([leaf, *others]):
                if tensor is leaf or id(tensor) in self._current:
                    old = self._current.get(id(tensor))
                    before = (old,) if old is not None and old not in reads else ()
                    call.made.append(self._new(tensor, call, (*reads, *before), shared=tensor is not leaf))
        if call.made:
            self.calls.append(call)

    def _new(self, tensor, call=None, reads=(), shared=False) -> Value:
        value = Value(tensor, self._made, call, reads, shared)
        self._made += 1
        self._describe(value)
        self._current[id(tensor)] = value
        living = self._memory.setdefault(_address(tensor), [])
        if not any(other.tensor is tensor for other in living):
            living.append(value)
        return value


def _address(tensor: Tensor) -> int:
    try:
        return tensor.untyped_storage().data_ptr()
    except (RuntimeError, NotImplementedError):  # a tensor without memory of its own, as a sparse one
        return id(tensor)


def _same_memory(one: Tensor, other: Tensor) -> bool:
    return (
        one.data_ptr() == other.data_ptr()
        and one.shape == other.shape
        and one.stride() == other.stride()
        and one.dtype == other.dtype
    )


def calls_between(source: Value, target: Value) -> set[Call]:
    """The calls that lead from one value to another."""
    calls, stack = set(), [target]
    while stack:
        value = stack.pop()
        if value is not source and value.call is not None and value.call not in calls:
            calls.add(value.call)
            stack += [read for read in value.reads if read.number >= source.number]
    return calls


def replay(source: Value, target: Value, values: Tensor) -> Tensor:
    """`target` computed anew with `values` in the place of `source`, on which alone it must depend."""
    tensors = {id(source.tensor): values.clone()}
    for call in sorted(calls_between(source, target), key=lambda call: call.made[0].number):
        given = {place: tensors[id(leaf)] for place, leaf in enumerate(call.leaves) if id(leaf) in tensors}
        arguments, results = call.repeat(given)
        for place in call.changed:
            tensors[id(call.leaves[place])] = arguments[place]
        tensors |= {
            id(old): new for old, new in zip(call.results, results, strict=True) if isinstance(old, Tensor)
        }
    return tensors[id(target.tensor)]


def dominator(value: Value, most: int = 100) -> Value | None:
    """The latest single value from which `value` is computed: all ways to it lead through that one."""
    front = set(value.reads)
    for _ in range(most):
        if len(front) <= 1:
            break
        last = max(front, key=lambda each: each.number)
        front.remove(last)
        front |= set(last.reads)
    return front.pop() if len(front) == 1 else None


def let_go(calls: set[Call]) -> None:
    """Cut calls that will be repeated off from the pass they were recorded in; its tensors and graph are then free."""
    values = {value for call in calls for value in (*call.made, *call.reads.values())}
    recorded = [leaf for call in calls for leaf in (*call.leaves, *call.results)]
    recorded += [value.tensor for value in values]  # alive to the end, so that no id comes twice
    bare = {
        id(leaf): leaf.detach()
        for leaf in recorded
        if isinstance(leaf, Tensor) and not isinstance(leaf, nn.Parameter)
    }
    for call in calls:
        call.leaves, call.results = (
            [bare.get(id(leaf), leaf) for leaf in each] for each in (call.leaves, call.results)
        )
    for value in values:
        value.tensor = bare.get(id(value.tensor), value.tensor)
        if value.call not in calls:
            value.call, value.reads = None, ()
