#!/usr/bin/env bash
# Compiles the kernels for CUDA on a machine without CUDA, on both ways that CubeCL has: as CUDA C++ by
# NVRTC (feature `cuda-cpp`), and as PTX that CubeCL's own LLVM writes (the default) by ptxas. NVIDIA's
# compilers come as Python packages. Exit code 77 where those cannot be had; PTX is left out where LLVM
# cannot.
set -euo pipefail
cd "$(dirname "$0")/.."
export CARGO_TARGET_DIR="${RECURRENT_GPU_TARGET_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/recurrent-gpu-target}"
export CARGO_TERM_COLOR=never
# Kept beside what is built.
packages=$CARGO_TARGET_DIR/nvidia
names=(nvidia-cuda-nvrtc-cu12 nvidia-cuda-runtime-cu12 nvidia-cuda-nvcc-cu12)
if ! test -e "$packages/done"; then
  { command -v python3 > /dev/null && timeout 600 python3 -m pip install --quiet --upgrade --target "$packages" \
      "${names[@]}" 2> /dev/null && chmod +x "$packages/nvidia/cuda_nvcc/bin/ptxas" \
      && touch "$packages/done"; } || {
    echo "no compilers: python3 -m pip could not install ${names[*]}" >&2
    exit 77
  }
fi
options=()
if library=$(.ci/llvm.sh "$CARGO_TARGET_DIR/nvptx" nvptx); then
  options=(--features ptx)
  export XDG_DATA_HOME=$CARGO_TARGET_DIR/nvptx
  export LD_LIBRARY_PATH=$library${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
  # Of the CUDA toolkit CubeCL asks for one file, libdevice.10.bc.
  export CUDA_PATH=$packages/nvidia/cuda_nvcc
else
  echo "PTX is left out"
fi
sources=$(mktemp -d)
trap 'rm -rf "$sources"' EXIT
cargo run --profile emit --locked --manifest-path .ci/cuda-source/Cargo.toml "${options[@]}" -- "$sources"
python3 .ci/nvidia.py "$packages" "$sources"
