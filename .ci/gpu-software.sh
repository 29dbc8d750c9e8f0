#!/usr/bin/env bash
# Tests the kernels, the modules and an example on a machine without a GPU: on wgpu with software Vulkan (Mesa's
# llvmpipe), and the kernels on CubeCL's CPU runtime. Installs Mesa's driver (Debian, Ubuntu, as root) or
# prints what to install; .ci/llvm.sh downloads the LLVM of the CPU runtime.
# Arguments select stages; the default is all: `.ci/gpu-software.sh golden`.
# RECURRENT_GPU_DEVICES names the devices, `wgpu cpu` by default.
# RECURRENT_GPU_FEATURES adds features of the crates, such as `fusion` or `fusion,autotune`.
set -euo pipefail
cd "$(dirname "$0")/.."
# A separate folder, because the features differ from those of the other tests.
export CARGO_TARGET_DIR="${RECURRENT_GPU_TARGET_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/recurrent-gpu-target}"
export CARGO_TERM_COLOR=never XDG_RUNTIME_DIR="${XDG_RUNTIME_DIR:-/tmp}"
started=$SECONDS

driver() {
  local file
  for file in /usr/share/vulkan/icd.d/lvp_icd*.json /etc/vulkan/icd.d/lvp_icd*.json; do
    test -e "$file" && echo "$file" && return
  done
  return 1
}

if ! driver > /dev/null && test "$(id -u)" = 0 && command -v apt-get > /dev/null; then
  install() { apt-get install -y --no-install-recommends mesa-vulkan-drivers; }
  { install || { apt-get update && install; }; } > /dev/null 2>&1 || echo "apt-get could not install it" >&2
fi
VK_ICD_FILENAMES=$(driver) || {
  echo "no software Vulkan: install Mesa's Vulkan drivers (Debian, Ubuntu: mesa-vulkan-drivers)" >&2
  exit 77
}
# The plain `wgpu` feature, without `autotune`: docs/gpu.md says why.
export VK_ICD_FILENAMES
features=wgpu
devices=${RECURRENT_GPU_DEVICES:-wgpu cpu}
# One build for both devices.
if [[ " $devices " == *" cpu "* ]]; then
  if library=$(.ci/llvm.sh "$CARGO_TARGET_DIR/data"); then
    features=wgpu,cpu
    export XDG_DATA_HOME=$CARGO_TARGET_DIR/data
    export LD_LIBRARY_PATH=$library${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
  else
    echo "CubeCL's cpu runtime is left out"
    devices=${devices//cpu/}
    test -n "${devices// /}" || exit 77
  fi
fi

# All crates in every call, so that their dependencies have the same features and are built once.
options=(--profile gpu --locked -p recurrent-core -p recurrent-modules -p recurrent-bench
  --features "$features${RECURRENT_GPU_FEATURES:+,$RECURRENT_GPU_FEATURES}")
wanted=("$@")
stage() { # name
  if test "${#wanted[@]}" -gt 0 && [[ " ${wanted[*]} " != *" $1 "* ]]; then return 1; fi
  printf '\n== %s on %s (%d s so far)\n' "$1" "$BURN_DEVICE" "$((SECONDS - started))"
}
run() { # test, names within it
  local test=$1
  shift
  stage "$test" || return 0
  cargo test "${options[@]}" --test "$test" -- --nocapture "$@"
}

# A folder with one golden file of each variant.
one_of_each() {
  local file variant
  local -A last
  for file in crates/recurrent-modules/tests/golden/data/*.safetensors; do
    variant=${file##*/}
    last[${variant%%__*}]=$file
  done
  mkdir -p "$scratch/golden"
  cp "${last[@]}" "$scratch/golden"
  echo "$scratch/golden"
}
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

printf '\n== build\n'
# From an empty folder the build may exceed the limit. Its results are kept, and the next run continues.
bound=${RECURRENT_GPU_BUILD_SECONDS:-2400}
status=0
timeout "$bound" cargo test "${options[@]}" --no-run --test launches --test fused --test golden --test containers \
  || status=$?
if test "$status" = 124; then
  echo "not built within $bound s (RECURRENT_GPU_BUILD_SECONDS)" >&2
  exit 78
elif test "$status" != 0; then
  exit "$status"
fi
for device in $devices; do
  export BURN_DEVICE=$device
  if test "$device" = cpu; then
    # Kernels only: each of Burn's products, and so the composed scan, takes seconds there.
    run fused adaptive_in_vectors large::case_02 large::case_07 large_gru \
      agreement::every_option_set::kind_25 agreement::every_option_set::kind_26
    # One file of each variant, for the time; all of them if that folder is named.
    RECURRENT_GOLDEN_DIR=${RECURRENT_GOLDEN_DIR:-$(one_of_each)} run golden chosen_device
    continue
  fi
  run launches
  run fused every_size long packed_rows swapped_gates graph histories::one shapes \
    amplified_gradients::kind_01 amplified_gradients::kind_07 amplified_gradients::kind_16 \
    amplified_gradients::kind_25 amplified_gradients::kind_26
  run golden chosen_device
  run containers
done

export BURN_DEVICE=wgpu
if [[ " $devices " == *" wgpu "* ]] && stage example; then
  examples=(capacity custom_model speed)
  for example in "${examples[@]}"; do
    cargo build "${options[@]}" --example "$example"
  done
  binaries=$CARGO_TARGET_DIR/gpu/examples
  results=$scratch/results
  mkdir "$results"
  "$binaries/capacity" --device wgpu --seeds 1 --epochs 1 --readout-epochs 1 --models lstm --out "$results"
  grep -q llvmpipe "$results/capacity.json" || { echo "capacity.json does not name the device" >&2; exit 1; }
  printf '\n== a machine without the device (%d s so far)\n' "$((SECONDS - started))"
  for example in "${examples[@]}"; do
    # Without Vulkan wgpu would use OpenGL.
    VK_ICD_FILENAMES=/nonexistent __EGL_VENDOR_LIBRARY_FILENAMES=/nonexistent \
      timeout 60 .ci/refused.sh 'looked for a GPU with a Vulkan' \
      "$binaries/$example" --device wgpu --out "$results"
  done
fi
printf '\n== done on %s (%d s)\n' "$devices" "$((SECONDS - started))"
