"""Operations on rows of `LANES` pixels, for use in functions compiled by numba.

A loop over the lanes would be compiled with a check of every two rows for overlap,
which costs more than its arithmetic. These load whole rows before they store one, so
that rows may be equal, but not overlap in part.
"""

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import extending, types

intrinsic: Any = extending.intrinsic

LANES = 64
"""Pixels that are solved in step."""

_DOUBLE, _SINGLE = ir.DoubleType(), ir.FloatType()
_WIDE = ir.VectorType(_DOUBLE, LANES)
_FUSED = ("contract",)


def _defined(body: Callable[..., Any], arrays: int, rows: int, result: Any) -> Any:
    """Intrinsic of `arrays` 2-D arrays, then `rows` numbers of rows."""

    def typed(typing_context: Any, *kinds: Any) -> Any:
        signature = result(*kinds[:arrays], *[types.intp] * rows)

        def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            pointers = [
                context.make_array(kind)(context, builder, value).data
                for kind, value in zip(signature.args[:arrays], values, strict=False)
            ]
            given = body(_Rows(builder), *pointers, *values[arrays:])
            return context.get_dummy_value() if given is None else given

        return signature, generate

    return typed


class _Rows:
    """Loads and stores of whole rows."""

    def __init__(self, builder: Any) -> None:
        self.builder = builder

    def _pointer(self, array: Any, row: Any) -> Any:
        kind = ir.VectorType(array.type.pointee, LANES)
        first = self.builder.mul(row, ir.Constant(row.type, LANES))
        return self.builder.bitcast(self.builder.gep(array, [first]), kind.as_pointer())

    def load(self, array: Any, row: Any) -> Any:
        value = self.builder.load(self._pointer(array, row))
        value.align = 4 if array.type.pointee == _SINGLE else 8
        return value

    def double(self, array: Any, row: Any) -> Any:
        return self.builder.fpext(self.load(array, row), _WIDE)

    def store(self, value: Any, array: Any, row: Any) -> None:
        done = self.builder.store(value, self._pointer(array, row))
        done.align = 4 if array.type.pointee == _SINGLE else 8

    def add(self, a: Any, b: Any) -> Any:
        return self.builder.fadd(a, b, flags=_FUSED)

    def subtract(self, a: Any, b: Any) -> Any:
        return self.builder.fsub(a, b, flags=_FUSED)

    def multiply(self, a: Any, b: Any) -> Any:
        return self.builder.fmul(a, b, flags=_FUSED)


def _add_product(do: _Rows, state: Any, target: Any, a: Any, b: Any) -> None:
    product = do.multiply(do.load(state, a), do.load(state, b))
    do.store(do.add(do.load(state, target), product), state, target)


def _scale(do: _Rows, state: Any, target: Any, a: Any) -> None:
    do.store(do.multiply(do.load(state, target), do.load(state, a)), state, target)


def _copy(do: _Rows, state: Any, target: Any, a: Any) -> None:
    do.store(do.load(state, a), state, target)


def _branch(
    do: _Rows,
    *given: Any,
) -> None:
    state, entry, share, ground, current, far_ground, far_current = given
    ratio = do.multiply(do.load(state, entry), do.load(state, share))
    to_ground = do.multiply(ratio, do.load(state, ground))
    to_current = do.multiply(ratio, do.load(state, current))
    one = do.add(do.load(state, far_ground), to_ground)
    two = do.add(do.load(state, far_current), to_current)
    do.store(ratio, state, entry)
    do.store(one, state, far_ground)
    do.store(two, state, far_current)


def _add(do: _Rows, state: Any, target: Any, a: Any) -> None:
    do.store(do.add(do.load(state, target), do.load(state, a)), state, target)


def _invert(do: _Rows, state: Any, target: Any) -> Any:
    value = do.load(state, target)
    zero = ir.Constant(_WIDE, [0.0] * LANES)
    positive = do.builder.fcmp_ordered(">", value, zero)
    inverse = do.builder.fdiv(ir.Constant(_WIDE, [1.0] * LANES), value)
    do.store(do.builder.select(positive, inverse, zero), state, target)
    return do.builder.bitcast(positive, ir.IntType(LANES))


def _link_ground(do: _Rows, state: Any, linked: Any, ground: Any, row: Any) -> None:
    zero = ir.Constant(_WIDE, [0.0] * LANES)
    one = ir.Constant(_WIDE, [1.0] * LANES)
    there = do.builder.fcmp_ordered(">", do.load(state, ground), zero)
    do.store(do.builder.select(there, one, zero), linked, row)


def _link_later(
    do: _Rows, state: Any, linked: Any, ratio: Any, later: Any, row: Any
) -> None:
    zero = ir.Constant(_WIDE, [0.0] * LANES)
    there = do.builder.fcmp_ordered(">", do.load(state, ratio), zero)
    through = do.builder.select(there, do.load(linked, later), zero)
    here = do.load(linked, row)
    more = do.builder.fcmp_ordered(">", through, here)
    do.store(do.builder.select(more, through, here), linked, row)


def _put(do: _Rows, state: Any, out: Any, given: Any, row: Any) -> None:
    narrow = ir.VectorType(_SINGLE, LANES)
    do.store(do.builder.fptrunc(do.load(state, given), narrow), out, row)


def _put_linked(
    do: _Rows, state: Any, linked: Any, out: Any, given: Any, here: Any, row: Any
) -> None:
    narrow = ir.VectorType(_SINGLE, LANES)
    zero = ir.Constant(_WIDE, [0.0] * LANES)
    nothing = ir.Constant(narrow, [float("nan")] * LANES)
    there = do.builder.fcmp_ordered(">", do.load(linked, here), zero)
    value = do.builder.fptrunc(do.load(state, given), narrow)
    do.store(do.builder.select(there, value, nothing), out, row)


def _keep(do: _Rows, w: Any, linked: Any, pair: Any, here: Any) -> None:
    zero = ir.Constant(ir.VectorType(_SINGLE, LANES), [0.0] * LANES)
    there = do.builder.fcmp_ordered(
        ">", do.load(linked, here), ir.Constant(_WIDE, [0.0] * LANES)
    )
    do.store(do.builder.select(there, do.load(w, pair), zero), w, pair)


def _fed(do: _Rows, w: Any, y: Any, pair: Any) -> tuple[Any, Any]:
    weight = do.double(w, pair)
    return weight, do.multiply(weight, do.double(y, pair))


def _take_up_later(
    do: _Rows, state: Any, w: Any, y: Any, pair: Any, entry: Any, near: Any, far: Any
) -> None:
    weight, current = _fed(do, w, y, pair)
    joined = do.add(do.load(state, entry), weight)
    here = do.add(do.load(state, near), current)
    there = do.subtract(do.load(state, far), current)
    do.store(joined, state, entry)
    do.store(here, state, near)
    do.store(there, state, far)


def _residual(
    do: _Rows, state: Any, y: Any, out: Any, pair: Any, early: Any, late: Any
) -> None:
    modelled = do.subtract(do.load(state, late), do.load(state, early))
    residual = do.subtract(do.double(y, pair), modelled)
    do.store(do.builder.fptrunc(residual, ir.VectorType(_SINGLE, LANES)), out, pair)


def _take_slope(
    do: _Rows, slope: Any, w: Any, variance: Any, target: Any, pair: Any
) -> None:
    weight = do.double(w, pair)
    taken = do.multiply(do.multiply(weight, weight), do.double(variance, pair))
    do.store(do.subtract(do.load(slope, target), taken), slope, target)


def _take_over(do: _Rows, turned: Any, slope: Any, target: Any, row: Any) -> None:
    do.store(do.load(slope, row), turned, target)


def _add_over(do: _Rows, turned: Any, slope: Any, target: Any, row: Any) -> None:
    do.store(do.add(do.load(turned, target), do.load(slope, row)), turned, target)


def _turn(
    do: _Rows, state: Any, turned: Any, drift: Any, inverse: Any, row: Any
) -> None:
    zero = ir.Constant(_WIDE, [0.0] * LANES)
    one = ir.Constant(_WIDE, [1.0] * LANES)
    share = do.load(state, inverse)
    shift = do.multiply(share, do.load(turned, row))
    positive = do.builder.fcmp_ordered(">", share, zero)
    total = do.builder.select(positive, do.builder.fdiv(one, share), zero)
    first = ir.Constant(inverse.type, 0)
    do.store(do.subtract(zero, do.multiply(share, shift)), turned, row)
    do.store(shift, drift, first)
    do.store(total, drift, ir.Constant(inverse.type, 1))


def _branch_slope(do: _Rows, *given: Any) -> None:
    state, slope, turned, drift, entry, inverse, ground, far = given
    first, second, third = (ir.Constant(entry.type, k) for k in range(3))
    ratio = do.load(state, entry)
    ratio_slope = do.subtract(
        do.multiply(do.load(slope, entry), do.load(state, inverse)),
        do.multiply(ratio, do.load(drift, first)),
    )
    handed = do.add(
        do.multiply(ratio_slope, do.load(state, ground)),
        do.multiply(ratio, do.load(slope, ground)),
    )
    there = do.add(do.load(slope, far), handed)
    scaled = do.multiply(ratio_slope, do.load(drift, second))
    do.store(ratio_slope, turned, entry)
    do.store(there, slope, far)
    do.store(scaled, drift, third)


def _mesh_slope(do: _Rows, *given: Any) -> None:
    state, slope, drift, target, a, b = given
    third = ir.Constant(target.type, 2)
    joined = do.add(
        do.multiply(do.load(drift, third), do.load(state, b)),
        do.multiply(do.load(state, a), do.load(slope, b)),
    )
    do.store(do.add(do.load(slope, target), joined), slope, target)


def _add_product_slope(do: _Rows, *given: Any) -> None:
    one, one_slope, x, x_slope, y, y_slope, target, row, factor = given
    a, a_slope = do.load(one, row), do.load(one_slope, row)
    b, b_slope = do.load(x, factor), do.load(x_slope, factor)
    value = do.add(do.load(y, target), do.multiply(a, b))
    slope = do.add(do.multiply(a_slope, b), do.multiply(a, b_slope))
    slope = do.add(do.load(y_slope, target), slope)
    do.store(value, y, target)
    do.store(slope, y_slope, target)


def _gather(do: _Rows, sums: Any, given: Any, target: Any, row: Any) -> None:
    do.store(do.add(do.load(sums, target), do.double(given, row)), sums, target)


def _gather_product(
    do: _Rows, sums: Any, given: Any, factor: Any, target: Any, row: Any
) -> None:
    product = do.multiply(do.double(given, row), do.double(factor, row))
    do.store(do.add(do.load(sums, target), product), sums, target)


def _gather_sign(do: _Rows, sums: Any, given: Any, target: Any, row: Any) -> None:
    zero = ir.Constant(ir.VectorType(_SINGLE, LANES), [0.0] * LANES)
    positive = do.builder.fcmp_ordered(">", do.load(given, row), zero)
    counted = do.builder.uitofp(positive, _WIDE)
    do.store(do.add(do.load(sums, target), counted), sums, target)


@intrinsic
def add_product(typing_context, state, target, a, b):
    """Add the product of rows a and b to row target."""
    return _defined(_add_product, 1, 3, types.void)(typing_context, state)


@intrinsic
def scale(typing_context, state, target, a):
    """Multiply row target by row a."""
    return _defined(_scale, 1, 2, types.void)(typing_context, state)


@intrinsic
def add(typing_context, state, target, a):
    """Add row a to row target."""
    return _defined(_add, 1, 2, types.void)(typing_context, state)


@intrinsic
def invert(typing_context, state, target):
    """Replace a row of numbers >= 0 by their inverse, 0 by 0; bits = which were > 0."""
    return _defined(_invert, 1, 1, types.uint64)(typing_context, state)


@intrinsic
def take_up(typing_context, state, w, y, pair, entry, near, far):
    """Add w to row entry; w y to row near; subtract w y from row far."""
    return _defined(_take_up_later, 3, 4, types.void)(typing_context, state, w, y)


@intrinsic
def residual(typing_context, state, y, out, pair, early, late):
    """Put y less the difference of two potentials into row pair of `out`."""
    return _defined(_residual, 3, 3, types.void)(typing_context, state, y, out)


@intrinsic
def take_slope(typing_context, slope, w, variance, target, pair):
    """Subtract w^2 times the variance, float32, of a pair from row target."""
    return _defined(_take_slope, 3, 2, types.void)(typing_context, slope, w, variance)


@intrinsic
def take_over(typing_context, turned, slope, target, row):
    """Make row target of `turned` equal to a row of `slope`."""
    return _defined(_take_over, 2, 2, types.void)(typing_context, turned, slope)


@intrinsic
def add_over(typing_context, turned, slope, target, row):
    """Add a row of `slope` to row target of `turned`."""
    return _defined(_add_over, 2, 2, types.void)(typing_context, turned, slope)


@intrinsic
def turn(typing_context, state, turned, drift, inverse, row):
    """Make a sum's derivative, s', in `turned` that of its inverse i: -i s' i.

    Rows 0 and 1 of `drift` get i s' and 1 / i (0 where i is 0).
    """
    return _defined(_turn, 3, 2, types.void)(typing_context, state, turned, drift)


@intrinsic
def branch_slope(
    typing_context, state, slope, turned, drift, entry, inverse, ground, far
):
    """Derivative of what `branch` does; row 2 of `drift` gets that of ratio x sum."""
    return _defined(_branch_slope, 4, 4, types.void)(
        typing_context, state, slope, turned, drift
    )


@intrinsic
def mesh_slope(typing_context, state, slope, drift, target, a, b):
    """Derivative of the conductance that joins the far ends of entries a and b."""
    return _defined(_mesh_slope, 3, 3, types.void)(typing_context, state, slope, drift)


@intrinsic
def add_product_slope(
    typing_context, one, one_slope, x, x_slope, y, y_slope, target, row, factor
):
    """Add a product of `one` and `x` to row target of `y`, and its derivative."""
    return _defined(_add_product_slope, 6, 3, types.void)(
        typing_context, one, one_slope, x, x_slope, y, y_slope
    )


@intrinsic
def gather(typing_context, sums, given, target, row):
    """Add a row of `given`, float32, to row target of `sums`."""
    return _defined(_gather, 2, 2, types.void)(typing_context, sums, given)


@intrinsic
def gather_sign(typing_context, sums, given, target, row):
    """Count in row target of `sums` where a row of `given`, float32, is positive."""
    return _defined(_gather_sign, 2, 2, types.void)(typing_context, sums, given)


@intrinsic
def gather_product(typing_context, sums, given, factor, target, row):
    """Add the product of rows of `given` and `factor` to row target of `sums`."""
    return _defined(_gather_product, 3, 2, types.void)(
        typing_context, sums, given, factor
    )


@intrinsic
def link_ground(typing_context, state, linked, ground, row):
    """Row of `linked`: 1 where a row of `state` is positive, else 0."""
    return _defined(_link_ground, 2, 2, types.void)(typing_context, state, linked)


@intrinsic
def link_later(typing_context, state, linked, ratio, later, row):
    """Take over row later of `linked` where the ratio is positive and it is larger."""
    return _defined(_link_later, 2, 3, types.void)(typing_context, state, linked)


@intrinsic
def put(typing_context, state, out, given, row):
    """Row of `out`, float32, from a row of `state`."""
    return _defined(_put, 2, 2, types.void)(typing_context, state, out)


@intrinsic
def put_linked(typing_context, state, linked, out, given, here, row):
    """The same, NaN where row here of `linked` is 0."""
    return _defined(_put_linked, 3, 3, types.void)(typing_context, state, linked, out)


@intrinsic
def keep(typing_context, w, linked, pair, here):
    """Row pair of `w`, float32, becomes 0 where row here of `linked` is."""
    return _defined(_keep, 2, 2, types.void)(typing_context, w, linked)


@intrinsic
def copy(typing_context, state, target, a):
    """Make row target equal to row a."""
    return _defined(_copy, 1, 2, types.void)(typing_context, state)


@intrinsic
def branch(
    typing_context, state, entry, share, ground, current, far_ground, far_current
):
    """Make an entry a ratio; hand its part of ground and current to the far end."""
    return _defined(_branch, 1, 6, types.void)(typing_context, state)
