#!/usr/bin/env bash
# Compiles the kernels for CUDA on a machine without CUDA: CubeCL writes them as CUDA C++, and NVIDIA's
# compiler for that, NVRTC, comes as a Python package. Exit code 77 where that cannot be had.
set -euo pipefail
cd "$(dirname "$0")/.."
export CARGO_TARGET_DIR="${RECURRENT_GPU_TARGET_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/recurrent-gpu-target}"
export CARGO_TERM_COLOR=never
# Kept beside what is built.
packages=$CARGO_TARGET_DIR/nvrtc
if ! test -e "$packages/done"; then
  { command -v python3 > /dev/null && timeout 600 python3 -m pip install --quiet --target "$packages" \
      nvidia-cuda-nvrtc-cu12 nvidia-cuda-runtime-cu12 2> /dev/null && touch "$packages/done"; } || {
    echo "no NVRTC: python3 -m pip could not install nvidia-cuda-nvrtc-cu12 and nvidia-cuda-runtime-cu12" >&2
    exit 77
  }
fi
sources=$(mktemp -d)
trap 'rm -rf "$sources"' EXIT
cargo run --profile emit --locked --manifest-path .ci/cuda-source/Cargo.toml -- "$sources"
python3 .ci/nvrtc.py "$packages" "$sources"
