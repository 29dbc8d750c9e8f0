#!/usr/bin/env bash
# Compiles the kernels for CUDA on a machine without CUDA: CubeCL writes them as CUDA C++, and NVIDIA's
# compiler for that, NVRTC, comes as a Python package. Needs Python with pip.
set -euo pipefail
cd "$(dirname "$0")/.."
export CARGO_TARGET_DIR="${RECURRENT_GPU_TARGET_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/recurrent-gpu-target}"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m pip install --quiet --target "$work/python" nvidia-cuda-nvrtc-cu12 nvidia-cuda-runtime-cu12
mkdir "$work/sources"
RECURRENT_CUDA_SOURCES="$work/sources" cargo test --profile gpu --locked -p recurrent-core \
  --features cuda-source --test cuda_source -- --nocapture
python3 .ci/nvrtc.py "$work/python" "$work/sources"
