"""Compiles every .cu file of a folder to PTX with NVRTC from a pip package: `nvrtc.py PACKAGES FOLDER`."""

import ctypes
import pathlib
import sys

ARCHITECTURE = b"--gpu-architecture=compute_75"


def main() -> int:
    packages, folder = map(pathlib.Path, sys.argv[1:3])
    library = next((packages / "nvidia").glob("cuda_nvrtc/lib/libnvrtc.so.*"))
    include = packages / "nvidia" / "cuda_runtime" / "include"
    # NVRTC looks for its builtins beside the other libraries of the process.
    for builtins in library.parent.glob("libnvrtc-builtins.so.*"):
        ctypes.CDLL(str(builtins), mode=ctypes.RTLD_GLOBAL)
    nvrtc = ctypes.CDLL(str(library))
    major, minor = ctypes.c_int(), ctypes.c_int()
    nvrtc.nvrtcVersion(ctypes.byref(major), ctypes.byref(minor))
    options = [ARCHITECTURE, b"--std=c++17", b"--include-path=" + str(include).encode()]
    failed, compiled = 0, 0
    for path in sorted(folder.glob("*.cu")):
        program = ctypes.c_void_p()
        code = nvrtc.nvrtcCreateProgram(
            ctypes.byref(program), path.read_bytes(), path.name.encode(), 0, None, None
        )
        assert code == 0, f"nvrtcCreateProgram: {code}"
        array = (ctypes.c_char_p * len(options))(*options)
        if nvrtc.nvrtcCompileProgram(program, len(options), array) == 0:
            compiled += 1
        else:
            failed += 1
            size = ctypes.c_size_t()
            nvrtc.nvrtcGetProgramLogSize(program, ctypes.byref(size))
            log = ctypes.create_string_buffer(size.value)
            nvrtc.nvrtcGetProgramLog(program, log)
            print(f"{path.name}:\n{log.value.decode()}", file=sys.stderr)
        nvrtc.nvrtcDestroyProgram(ctypes.byref(program))
    architecture = ARCHITECTURE.decode().split("=")[1]
    print(
        f"NVRTC {major.value}.{minor.value}, {architecture}: "
        f"{compiled} kernels compiled, {failed} failed"
    )
    return 1 if failed or not compiled else 0


sys.exit(main())
