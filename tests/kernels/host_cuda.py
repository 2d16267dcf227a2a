"""A CuPy that has no device: arrays are NumPy's, kernels are compiled by g++ and run block by block on fibres.

It is strict where a device would be: arrays of the two libraries don't mix, launches check their arguments.
"""

import ctypes
import hashlib
import re
import shutil
import subprocess
import tempfile
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np

HEADER = Path(__file__).with_name("host_cuda.h")
FOLDER = Path(__file__).parent / "__pycache__" / "host_cuda"
COMPILER = shutil.which("g++")


class ndarray(np.ndarray):
    """An array that a device would hold."""

    __module__ = "cupy"

    def astype(self, *arguments, **options):
        with np.errstate(over="ignore"):  # a device doesn't warn
            return super().astype(*arguments, **options)

    def __array_ufunc__(self, ufunc, method, *inputs, out=(), **options):
        _refuse_mixed((*inputs, *out))
        plain = [x.view(np.ndarray) if isinstance(x, ndarray) else x for x in inputs]
        if out:
            options["out"] = tuple(x.view(np.ndarray) for x in out)
        return on_device(getattr(ufunc, method)(*plain, **options))

    def __array_function__(self, function, types, arguments, options):
        return on_device(super().__array_function__(function, types, arguments, options))


def _refuse_mixed(arguments):
    if any(type(argument) is np.ndarray and argument.ndim for argument in arguments):
        raise TypeError("Unsupported type <class 'numpy.ndarray'>")


def on_device(result):
    """The arrays of a result as a device's."""
    if isinstance(result, (tuple, list)):
        return type(result)(map(on_device, result))
    return np.asarray(result).view(ndarray) if isinstance(result, (np.ndarray, np.generic)) else result


def compiled(source: str, options: tuple[str, ...]) -> ctypes.CDLL:
    """A shared library of host C++, kept between runs."""
    text = f'#include "{HEADER}"\n{source}'
    for name in re.findall(r'extern "C" __global__ void (?:__launch_bounds__\(\w+\) )?(\w+)\(', source):
        text += (
            f'extern "C" int run_{name}(int x, int y, int n, void** a, const int* s, int c) '
            f"{{ return run({name}, x, y, n, a, s, c); }}\n"
        )
    options = *(option for option in options if option.startswith("-D")), "-O1", "-std=c++17", "-ffp-contract=off"
    key = hashlib.sha256("\n".join([text, HEADER.read_text(), *options]).encode()).hexdigest()[:24]
    library = FOLDER / f"{key}.so"
    if not library.exists():
        FOLDER.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=FOLDER) as folder:
            part = Path(folder) / "part.so"
            command = [COMPILER, "-shared", "-fPIC", "-x", "c++", "-", "-o", str(part), *options]
            done = subprocess.run(command, input=text, capture_output=True, text=True)
            assert done.returncode == 0, done.stderr
            part.replace(library)  # whole or not there, for tests side by side
    return ctypes.CDLL(str(library))


class RawModule:
    def __init__(self, code, options):
        self.binary = compiled(code, options)

    def get_function(self, name):
        run = getattr(self.binary, f"run_{name}")

        def launch(grid, block, arguments):
            for argument in arguments:
                assert isinstance(argument, (ndarray, np.generic)), f"not for a kernel: {type(argument)}"
            cells = [
                ctypes.c_void_p(argument.ctypes.data)
                if isinstance(argument, ndarray) and argument.ndim
                else ctypes.create_string_buffer(argument.tobytes(), argument.nbytes)
                for argument in arguments
            ]
            sizes = [-a.itemsize if isinstance(a, ndarray) and a.ndim else a.nbytes for a in arguments]
            pointers = (ctypes.c_void_p * len(cells))(*(ctypes.addressof(cell) for cell in cells))
            wrong = run(*(*grid, 1)[:2], block[0], pointers, (ctypes.c_int * len(sizes))(*sizes), len(sizes))
            assert wrong == 0, f"argument {wrong - 1} of {name} doesn't fit"

        return launch


class _Module(SimpleNamespace):
    def __getattr__(self, name):
        function = getattr(np, name)
        if isinstance(function, type) or not callable(function):
            return function

        def on_the_device(*arguments, **options):
            _refuse_mixed(arguments)
            return on_device(function(*arguments, **options))

        return on_the_device


def cufinufft() -> ModuleType:
    """A stand-in for cuFINUFFT: FINUFFT on the host, for device arrays of the right kind only."""
    import finufft

    def checked(array, dtype):
        assert isinstance(array, ndarray) and array.dtype == dtype and array.flags.c_contiguous
        return np.asarray(array).view(np.ndarray)

    class Plan:
        def __init__(self, kind, modes, eps, isign, dtype, upsampfac):
            assert dtype == "complex128"
            self.plan = finufft.Plan(kind, modes, eps=eps, isign=isign, upsampfac=upsampfac, nthreads=1)

        def setpts(self, *points):
            self.plan.setpts(*(checked(x, np.float64) for x in points))

        def execute(self, data):
            return on_device(self.plan.execute(checked(data, np.complex128)))

    module = ModuleType("cufinufft")
    module.Plan, module.__spec__ = Plan, ModuleSpec("cufinufft", None)
    return module


def cupy() -> SimpleNamespace:
    """A stand-in for the module."""
    runtime = SimpleNamespace(getDeviceCount=lambda: 1)
    stream = SimpleNamespace(synchronize=lambda: None)
    cuda = SimpleNamespace(
        runtime=runtime,
        nvrtc=SimpleNamespace(getVersion=lambda: (13, 0)),
        Device=lambda: SimpleNamespace(attributes={"MultiProcessorCount": 1}),
        get_current_stream=lambda: stream,
        Stream=SimpleNamespace(null=stream),
    )
    return _Module(
        ndarray=ndarray,
        asarray=lambda x, dtype=None: np.array(x, dtype=dtype).view(ndarray),
        asnumpy=lambda x: np.array(x.view(np.ndarray)),
        RawModule=RawModule,
        cuda=cuda,
    )
