"""Compiles every .cu file of a folder with NVRTC and assembles every .ptx file with ptxas, both from pip
packages: `nvidia.py PACKAGES FOLDER`."""

import ctypes
import pathlib
import re
import subprocess
import sys

CAPABILITY = 75


def nvrtc(packages: pathlib.Path, paths: list[pathlib.Path]) -> int:
    """Compiles CUDA C++ to PTX; returns how many failed."""
    library = next((packages / "nvidia").glob("cuda_nvrtc/lib/libnvrtc.so.*"))
    include = packages / "nvidia" / "cuda_runtime" / "include"
    # NVRTC looks for its builtins beside the other libraries of the process.
    for builtins in library.parent.glob("libnvrtc-builtins.so.*"):
        ctypes.CDLL(str(builtins), mode=ctypes.RTLD_GLOBAL)
    nvrtc = ctypes.CDLL(str(library))
    major, minor = ctypes.c_int(), ctypes.c_int()
    nvrtc.nvrtcVersion(ctypes.byref(major), ctypes.byref(minor))
    options = [
        f"--gpu-architecture=compute_{CAPABILITY}".encode(),
        b"--std=c++17",
        b"--include-path=" + str(include).encode(),
    ]
    failed = 0
    for path in paths:
        program = ctypes.c_void_p()
        code = nvrtc.nvrtcCreateProgram(
            ctypes.byref(program), path.read_bytes(), path.name.encode(), 0, None, None
        )
        assert code == 0, f"nvrtcCreateProgram: {code}"
        array = (ctypes.c_char_p * len(options))(*options)
        if nvrtc.nvrtcCompileProgram(program, len(options), array) != 0:
            failed += 1
            size = ctypes.c_size_t()
            nvrtc.nvrtcGetProgramLogSize(program, ctypes.byref(size))
            log = ctypes.create_string_buffer(size.value)
            nvrtc.nvrtcGetProgramLog(program, log)
            print(f"{path.name}:\n{log.value.decode()}", file=sys.stderr)
        nvrtc.nvrtcDestroyProgram(ctypes.byref(program))
    print(
        f"NVRTC {major.value}.{minor.value}, compute_{CAPABILITY}: "
        f"{len(paths) - failed} kernels compiled, {failed} failed"
    )
    return failed


def ptxas(packages: pathlib.Path, paths: list[pathlib.Path]) -> int:
    """Assembles PTX to machine code; returns how many failed."""
    program = packages / "nvidia" / "cuda_nvcc" / "bin" / "ptxas"
    version = subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout
    registers, spills, failed = [], 0, 0
    for path in paths:
        done = subprocess.run(
            [program, f"-arch=sm_{CAPABILITY}", "-v", path, "-o", path.with_suffix(".cubin")],
            capture_output=True,
            text=True,
        )
        if done.returncode != 0:
            failed += 1
            print(f"{path.name}:\n{done.stderr}", file=sys.stderr)
            continue
        registers.append(int(re.search(r"Used (\d+) registers", done.stderr)[1]))
        spills += re.search(r"(\d+) bytes spill stores", done.stderr)[1] != "0"
    print(
        f"ptxas {re.search(r'release ([0-9.]+)', version)[1]}, sm_{CAPABILITY}: "
        f"{len(paths) - failed} kernels assembled, {failed} failed; at most "
        f"{max(registers, default=0)} registers, {spills} spill"
    )
    return failed


def main() -> int:
    packages, folder = map(pathlib.Path, sys.argv[1:3])
    cpp, ptx = sorted(folder.glob("*.cu")), sorted(folder.glob("*.ptx"))
    if not cpp:
        print(f"{folder} has no kernels", file=sys.stderr)
        return 1
    failed = nvrtc(packages, cpp)
    if ptx:
        failed += ptxas(packages, ptx)
    return 1 if failed else 0


sys.exit(main())
