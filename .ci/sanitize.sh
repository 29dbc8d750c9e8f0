#!/usr/bin/env bash
# Runs the kernel tests under a sanitizer. Not part of .ci/run, because it needs a separate build of ten minutes.
#
#   .ci/sanitize.sh address     AddressSanitizer; needs a nightly toolchain with its runtime
#   .ci/sanitize.sh valgrind    valgrind's memcheck, on the kernels alone; needs valgrind
#
# Detects out-of-bounds accesses to tensors and buffers, and use after free. Pooled buffers are larger than
# requested, so neither tool detects a read just past the end of one. The tests cover that with sizes around every
# vector length.
set -euo pipefail
cd "$(dirname "$0")/.."
target=${CARGO_TARGET_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/recurrent-target}

case "${1:-address}" in
address)
  host=$(rustc +nightly -vV | sed -n 's/^host: //p')
  # The leak check would report the pools, which are never freed.
  ASAN_OPTIONS=detect_leaks=0 RUSTFLAGS="-Zsanitizer=address" CARGO_TARGET_DIR="$target-asan" \
    cargo +nightly test --locked -p recurrent-core --target "$host" \
    --test kernels --test fused --test threads -- --skip functions_are_monotone
  ;;
valgrind)
  # A CPU that valgrind supports, without AVX-512.
  binary=$(CARGO_TARGET_DIR="$target" cargo test --locked --workspace --test kernels --no-run --message-format=json |
    sed -n 's/.*"executable":"\([^"]*kernels-[^"]*\)".*/\1/p' | tail -n 1)
  valgrind --error-exitcode=9 --quiet "$binary" --test-threads=1 \
    --skip functions_are_monotone --skip errors_
  ;;
*)
  echo "usage: $0 [address|valgrind]" >&2
  exit 2
  ;;
esac
