#!/usr/bin/env bash
# Compiles the GPU kernels on a machine without a GPU. CubeCL generates CUDA C++ (its feature `cuda-cpp`), PTX
# with its own LLVM (its default for CUDA), and SPIR-V (its feature `vulkan`). NVRTC and ptxas compile the first
# two, spirv-val validates the third. NVIDIA's compilers are installed as Python packages; the script exits with 77
# if that fails. If LLVM or spirv-val is not available, it prints what it skips.
set -euo pipefail
cd "$(dirname "$0")/.."
export CARGO_TARGET_DIR="${RECURRENT_GPU_TARGET_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/recurrent-gpu-target}"
export CARGO_TERM_COLOR=never
# Kept in the target folder.
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
  # CubeCL needs one file of the CUDA toolkit, libdevice.10.bc.
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
