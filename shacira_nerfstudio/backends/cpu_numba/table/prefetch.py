"""A hint to the processor, which numba has no word for: that memory will be wanted soon."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

_BYTES, _INT = ir.IntType(8).as_pointer(), ir.IntType(32)
_TO_WRITE, _KEEP, _DATA = 1, 3, 1


def _prefetch(typing_context: Any, array: Any, index: Any) -> Any:
    """Fetches the cache line of ``array[index]``, of a flat array, to be written. Never faults,
    whatever the index."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        place = builder.bitcast(builder.gep(data, [arguments[1]]), _BYTES)
        kind = ir.FunctionType(ir.VoidType(), [_BYTES, _INT, _INT, _INT])
        function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0i8")
        builder.call(function, [place, *(_INT(n) for n in (_TO_WRITE, _KEEP, _DATA))])
        return context.get_dummy_value()

    return types.void(array, types.intp), generate


prefetch: Any = intrinsic(_prefetch)  # its caller leaves out the first argument
