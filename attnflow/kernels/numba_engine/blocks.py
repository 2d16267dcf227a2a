"""Sums over coordinates, or over keys, for a block of rows and columns whose sums stay in the processor's registers.

With a sum of every row and column in a register, each number that is loaded serves a whole row or column of the block:
a multiply-add costs less than one load. LLVM does not find this in plain loops, so a block is written in its vector
instructions here, for whatever vectors the processor has (numba's target, which NUMBA_CPU_NAME and NUMBA_CPU_FEATURES
override). How wide these are and how many decides the shape of a block, and nothing else does: what is compiled depends
on the processor alone, as numba's cache on disk does.
"""

from __future__ import annotations

import platform
from collections.abc import Callable

import llvmlite.binding as llvm
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.registry import cpu_target
from numba.extending import intrinsic

VECTORS = 2  # of a row of a block


def _vector_bytes() -> int:
    """Of the widest vectors that the target computes with: the name of the register a sum of 64 bytes goes to tells."""
    triple, cpu, features = cpu_target.target_context.codegen().magic_tuple()
    target = llvm.Target.from_triple(triple).create_target_machine(cpu=cpu, features=features)
    kind = ir.VectorType(ir.DoubleType(), 8)
    module = ir.Module()
    module.triple = triple
    add = ir.Function(module, ir.FunctionType(kind, [kind, kind]), "add")
    builder = ir.IRBuilder(add.append_basic_block())
    builder.ret(builder.fadd(*add.args))
    code = target.emit_assembly(llvm.parse_assembly(str(module)))
    return 64 if "zmm" in code else 32 if "ymm" in code else 16


VECTOR_BYTES = _vector_bytes()
REGISTERS = 32 if VECTOR_BYTES == 64 or platform.machine().lower() in ("arm64", "aarch64") else 16
ROWS = (REGISTERS - 4) // VECTORS  # of a block; the other registers hold what is loaded


def width(dtype: np.dtype) -> int:
    """Numbers in a row of a block."""
    return VECTORS * VECTOR_BYTES // np.dtype(dtype).itemsize


def block(term: str, along: tuple[int, int], vectors: int = VECTORS) -> Callable:
    """A compiled function for sums of one block, at the start of a row in each of its arrays.

    (left, at, right, at, length, sides, inverses, row, at, column, at, out, at, step): with W = vectors' numbers, row
    i < ROWS, column j < W of `out`, whose rows lie `step` apart, becomes

        row[j] + column[i] + sum over k < length of term(left_ik, right_kj),

    left_ik = left[along[0] i + along[1] k], right_kj = right[W k + j] and the term x y ("product"), (x - y)^2
    ("square"), or (x - y)^2 to the nearest image with a period of sides[k] = 1 / inverses[k] ("wrapped"). Nothing is
    checked: the arrays must be that long.
    """

    @intrinsic
    def sums(
        typing_context,
        left,
        left_at,
        right,
        right_at,
        length,
        sides,
        inverses,
        row,
        row_at,
        column,
        column_at,
        out,
        out_at,
        step,
    ):
        arguments = left, left_at, right, right_at, length, sides, inverses, row, row_at, column, column_at, out, out_at, step

        def build(context, builder, signature, values):
            given = dict(zip(_NAMES, values))
            data = {
                name: context.make_array(kind)(context, builder, given[name]).data
                for name, kind in zip(_NAMES, signature.args)
                if isinstance(kind, types.Array)
            }
            code = _Code(builder, signature.args[0].dtype, vectors)
            totals = [[code.variable() for _ in range(vectors)] for _ in range(ROWS)]
            with cgutils.for_range(builder, given["length"]) as loop:
                at = builder.add(given["right_at"], code.times(loop.index, code.numbers))
                right_k = code.row(data["right"], at)
                at = builder.add(given["left_at"], code.times(loop.index, along[1]))
                side, inverse = (
                    (code.spread(data[name], loop.index) if term == "wrapped" else None) for name in ("sides", "inverses")
                )
                for i, sums_i in enumerate(totals):
                    x = code.spread(data["left"], code.plus(at, i * along[0]))
                    for total, y in zip(sums_i, right_k):
                        code.add_to(total, *code.factors(term, x, y, side, inverse))
            across = code.row(data["row"], given["row_at"])
            for i, sums_i in enumerate(totals):
                down = code.spread(data["column"], code.plus(given["column_at"], i))
                at = builder.add(given["out_at"], builder.mul(given["step"], given["step"].type(i)))
                code.store(
                    data["out"], at, [builder.fadd(builder.load(s), builder.fadd(r, down)) for s, r in zip(sums_i, across)]
                )
            return context.get_dummy_value()

        return types.void(*arguments), build

    return sums


_NAMES = (
    "left left_at right right_at length sides inverses row row_at column column_at out out_at step".split()
)  # of what a block is given


class _Code:
    """Vector instructions of LLVM that a block is made of."""

    def __init__(self, builder, number, vectors: int) -> None:
        self.builder, self.vectors = builder, vectors
        self.bytes = number.bitwidth // 8
        self.lanes = VECTOR_BYTES // self.bytes
        self.numbers = vectors * self.lanes
        kind = {8: ir.DoubleType(), 4: ir.FloatType()}[self.bytes]
        self.vector = ir.VectorType(kind, self.lanes)
        self.same = ir.Constant(ir.VectorType(ir.IntType(32), self.lanes), None)

    def variable(self):
        """A sum that starts at zero."""
        return cgutils.alloca_once_value(self.builder, ir.Constant(self.vector, None))

    def plus(self, index, number: int):
        return self.builder.add(index, index.type(number))

    def times(self, index, number: int):
        return self.builder.mul(index, index.type(number))

    def row(self, data, at) -> list:
        """Vectors of what lies one beside the other."""
        places = (self.builder.gep(data, [self.plus(at, v * self.lanes)]) for v in range(self.vectors))
        return [self.builder.load(self.builder.bitcast(p, self.vector.as_pointer()), align=self.bytes) for p in places]

    def store(self, data, at, vectors: list) -> None:
        for v, vector in enumerate(vectors):
            place = self.builder.gep(data, [self.plus(at, v * self.lanes)])
            self.builder.store(vector, self.builder.bitcast(place, self.vector.as_pointer()), align=self.bytes)

    def spread(self, data, at):
        """A vector of one number."""
        number, empty = self.builder.load(self.builder.gep(data, [at])), ir.Constant(self.vector, ir.Undefined)
        return self.builder.shuffle_vector(
            self.builder.insert_element(empty, number, ir.Constant(ir.IntType(32), 0)), empty, self.same
        )

    def factors(self, term: str, x, y, side, inverse) -> tuple:
        """Two vectors whose product is the term."""
        if term == "product":
            return x, y
        difference = self.builder.fsub(x, y)
        if term == "wrapped":
            turns = self._rint(self.builder.fmul(difference, inverse))
            difference = self.builder.fsub(difference, self.builder.fmul(side, turns, flags=_FUSED), flags=_FUSED)
        return difference, difference

    def add_to(self, total, x, y) -> None:
        product = self.builder.fmul(x, y, flags=_FUSED)
        self.builder.store(self.builder.fadd(self.builder.load(total), product, flags=_FUSED), total)

    def _rint(self, x):
        kind = ir.FunctionType(self.vector, [self.vector])
        name = f"llvm.rint.v{self.lanes}f{8 * self.bytes}"
        return self.builder.call(cgutils.get_or_insert_function(self.builder.module, kind, name), [x])


_FUSED = ("contract",)  # a product and a sum become one instruction where there is one
