#!/usr/bin/env bash
# The kernels and modules on wgpu, on a machine without a GPU: software Vulkan (Mesa's llvmpipe).
# Installs the driver where it may (Debian, Ubuntu, as root); otherwise says what to install.
# Takes names of the tests to run instead of all: `.ci/gpu-software.sh golden`.
set -euo pipefail
cd "$(dirname "$0")/.."
# Of its own: the features differ, and the folder of the other tests stays as it is.
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
export VK_ICD_FILENAMES BURN_DEVICE=wgpu

run() { # crate, test, names within it
  local crate=$1 test=$2
  shift 2
  if test "${#wanted[@]}" -gt 0 && [[ " ${wanted[*]} " != *" $test "* ]]; then return; fi
  printf '\n== %s, %s (%d s so far)\n' "$crate" "$test" "$((SECONDS - started))"
  cargo test --profile gpu --locked -p "$crate" --features wgpu --test "$test" -- --nocapture "$@"
}

wanted=("$@")
run recurrent-core launches
run recurrent-core fused every_size long packed_rows swapped_gates graph
run recurrent-modules golden chosen_device
run recurrent-modules containers
printf '\n== done on software Vulkan (%d s)\n' "$((SECONDS - started))"
