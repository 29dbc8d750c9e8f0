#!/usr/bin/env bash
# Compiles the kernels for GPUs on a machine without one: CubeCL writes them as CUDA C++ (its feature
# `cuda-cpp`), as PTX by its own LLVM (its default for CUDA), and as SPIR-V (its feature `vulkan`); NVRTC,
# ptxas and spirv-val take those. NVIDIA's compilers come as Python packages; exit code 77 where those
# cannot be had. Says what is left out where LLVM or spirv-val cannot.
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
cargo run --profile emit --locked --manifest-path .ci/kernel-source/Cargo.toml "${options[@]}" -- "$sources"
python3 .ci/nvidia.py "$packages" "$sources"

if ! command -v spirv-val > /dev/null && test "$(id -u)" = 0 && command -v apt-get > /dev/null; then
  install() { apt-get install -y --no-install-recommends spirv-tools; }
  { install || { apt-get update && install; }; } > /dev/null 2>&1 || true
fi
if ! command -v spirv-val > /dev/null; then
  echo "SPIR-V is left out: no spirv-val (Debian, Ubuntu: spirv-tools)"
  exit 0
fi
failed=0
for file in "$sources"/*.spv; do
  spirv-val --target-env vulkan1.3 "$file" || { echo "$(basename "$file") is not valid" >&2; failed=$((failed + 1)); }
done
echo "$(spirv-val --version | head -n 1): $(ls "$sources"/*.spv | wc -l) kernels checked, $failed not valid"
test "$failed" = 0
