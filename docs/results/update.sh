#!/usr/bin/env bash
# Measures the tables in docs/ and writes them, with command, machine, date and commit, into the
# pages. Each table is replaced between its markers as a whole, or left unchanged.
#
#   docs/results/update.sh                    all parts that this machine can measure
#   docs/results/update.sh capacity speed     these parts
#   docs/results/update.sh --list             the parts, and the tables that are measured by hand
#   docs/results/update.sh --try DIR [PART..] small settings, into copies of the pages in DIR
#
# Run it on an idle machine. RECURRENT_PYTHON names a Python with the packages
# of benches/peers/requirements.txt, python3 by default.
set -euo pipefail
cd "$(dirname "$0")/../.."
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/recurrent-target}"
export CARGO_TERM_COLOR=never
python=${RECURRENT_PYTHON:-python3}

# name, page, what it needs and how long it takes on two cores.
parts="
capacity   docs/results/capacity.md  3 minutes
strategies docs/results/capacity.md  6 minutes
speed      docs/results/speed.md     30 minutes
bf16       docs/results/bf16.md      2 minutes
lengths    docs/results/lengths.md   1 minute
peers      docs/results/peers.md     5 minutes; Python with torch and onnxruntime
devices    docs/results/peers.md     15 minutes, with the build with --features ndarray
build      docs/results/build.md     10 minutes: everything is built from an empty folder
gpu        docs/results/gpu.md       15 minutes, and a build of 40; a software Vulkan driver
"
# Tables that no part measures: page and table, what they need, the command.
by_hand="
docs/gpu.md, with fusion: an hour and a software Vulkan driver: RECURRENT_GPU_FEATURES=fusion RECURRENT_GPU_DEVICES=wgpu .ci/gpu-software.sh golden containers fused
docs/gpu.md, with autotune: half an hour and a software Vulkan driver: RECURRENT_GPU_FEATURES=autotune RECURRENT_GPU_DEVICES=wgpu .ci/gpu-software.sh golden containers
docs/gpu.md, kernels as PTX, CUDA C++ and SPIR-V: NVIDIA's compilers, an LLVM with PTX and spirv-val: .ci/compile-kernels.sh
docs/gpu.md, on vulkan with two lines of CubeCL exchanged: a patched copy of cubecl-spirv; the command is on the page
docs/gpu.md, tests on cpu one by one: an hour, an LLVM: the commands are on the page
docs/gpu.md, build times: an hour, an empty folder: .ci/gpu-software.sh
"

fail() { printf 'error: %s\n' "$*" >&2; exit 2; }
names() { awk 'NF { print $1 }' <<< "$parts"; }
page_of() { awk -v part="$1" '$1 == part { print $2 }' <<< "$parts"; }

try=
case ${1:-} in
  --list)
    printf 'Parts:%sMeasured by hand:%s' "$parts" "$by_hand"
    exit
    ;;
  --try)
    test $# -ge 2 || fail "--try needs a folder"
    mkdir -p "$2"
    try=$(cd "$2" && pwd)
    shift 2
    ;;
  -*) fail "unknown option \`$1\`; known are: --list, --try DIR" ;;
esac
for part in "$@"; do
  names | grep -qx -- "$part" || fail "unknown part \`$part\`; known are: $(names | tr '\n' ' ')"
done
mapfile -t wanted < <(if test $# -gt 0; then printf '%s\n' "$@"; else names; fi)

# A page must be able to name the code that it measured.
changed=$(git status --porcelain -- crates examples benches Cargo.toml Cargo.lock)
if test -z "$try" && test -n "$changed"; then
  fail "there are changes that are in no commit, so no page could name its code:"$'\n'"$changed"
fi
commit=$(git rev-parse HEAD)
kernels=$(git rev-parse HEAD:./crates/recurrent-core/src)
version=$(sed -n '/^\[workspace.package\]/,/^\[/s/^version = "\(.*\)"/\1/p' Cargo.toml)
burn=$(sed -n '/^name = "burn"$/{n;s/^version = "\(.*\)"/\1/p}' Cargo.lock)

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

# The machine, for people.
machine() {
  local cpu system
  cpu=$(sed -n 's/^model name[^:]*: *//p' /proc/cpuinfo 2> /dev/null | sed -n 1p)
  test -n "$cpu" || cpu=$(sysctl -n machdep.cpu.brand_string 2> /dev/null || uname -m)
  if grep -qw avx512f /proc/cpuinfo 2> /dev/null; then cpu+=", AVX-512"; fi
  system=$(sed -n 's/^PRETTY_NAME="\(.*\)"/\1/p' /etc/os-release 2> /dev/null || true)
  echo "$(getconf _NPROCESSORS_ONLN) cores ($cpu), ${system:-$(uname -s)}"
}

# Replaces the block NAME of a page by the text of a file: whole or not at all.
write_block() { # page, block, file
  local page=$1 name=$2 body=$3 target=$1
  if test -n "$try"; then
    target=$try/$page
    mkdir -p "$(dirname "$target")"
    test -e "$target" || cp "$page" "$target"
  fi
  local begin="<!-- begin measured $name -->" end="<!-- end measured $name -->"
  grep -qxF -- "$begin" "$target" && grep -qxF -- "$end" "$target" \
    || fail "$target has no line \`$begin\` or \`$end\`"
  {
    echo "<!-- measured date=$(date -u +%F) version=$version commit=$commit kernels=$kernels -->"
    echo "$(date -u +%F); $(machine); $(rustc --version | cut -d' ' -f1,2), Burn $burn; version $version," \
      "commit ${commit:0:7}."
    test -z "$try" || echo "**Small settings, to try the script: no result.**"
    echo
    cat "$body"
  } > "$scratch/block"
  awk -v begin="$begin" -v end="$end" -v block="$scratch/block" '
    $0 == end { skip = 0 }
    !skip { print }
    $0 == begin { skip = 1; while ((getline line < block) > 0) print line }
  ' "$target" > "$target.new"
  mv "$target.new" "$target"
  echo "written: $target, block $name"
}

# A command as text, then its output: $1 is the language of the output, `text` or none (Markdown).
shown() { # language, command as text, output file
  printf '```sh\n%s\n```\n\n' "$2"
  if test "$1" = text; then printf '```text\n'; fi
  # Without blank lines at either end.
  sed -e '/./,$!d' "$3" | sed -e :a -e '/^\n*$/{$d;N;ba' -e '}'
  if test "$1" = text; then printf '```\n'; fi
}

# Runs an example in release; its own output goes to a file without the list of what was written.
example() { # file, name, arguments
  local file=$1 name=$2
  shift 2
  cargo build --release --locked --quiet --example "$name"
  "$CARGO_TARGET_DIR/release/examples/$name" --quiet --out "$scratch/$name" "$@" > "$file.all"
  grep -v '^Written to ' "$file.all" > "$file"
}

# Each part is a function that returns 77 with a sentence on standard output where it cannot run.

measure_capacity() {
  local options=() started=$SECONDS
  test -z "$try" || options=(--seeds 1 --epochs 1 --readout-epochs 1)
  example "$scratch/out" capacity "${options[@]}"
  {
    shown text "cargo run --release --example capacity${options[*]:+ -- ${options[*]}}" "$scratch/out"
    printf '\nIt took %s s. "Original today" is the code of lstms.pth under PyTorch 2.13, six seeds\n' \
      "$((SECONDS - started))"
    printf '(`crates/recurrent-bench/data/capacity_reference.json`). A test compares every row with it:\n'
    printf '`cargo test --release -p recurrent-bench --test capacity`.\n'
  } > "$scratch/body"
  write_block docs/results/capacity.md capacity "$scratch/body"
  cp "$scratch/capacity/capacity.svg" "${try:-.}/docs/results/capacity.svg"
}

measure_strategies() {
  local options=(--readout-epochs 0) strategy
  test -z "$try" || options+=(--seeds 1 --epochs 1)
  : > "$scratch/body"
  for strategy in fused composed; do
    example "$scratch/out" capacity --strategy "$strategy" "${options[@]}"
    # The table alone.
    sed -n '/^──/,$p' "$scratch/out" | sed '/^$/,$d' > "$scratch/table"
    shown text "cargo run --release --example capacity -- --strategy $strategy ${options[*]}" "$scratch/table" \
      >> "$scratch/body"
    echo >> "$scratch/body"
  done
  write_block docs/results/capacity.md strategies "$scratch/body"
}

measure_speed() {
  local section options
  : > "$scratch/body"
  for section in table sequence grid variants; do
    options=(--sections "$section")
    if test -n "$try"; then
      options+=(--sizes 16 --steps 5 --rounds 1 --cases 2,5,8,16 --models lstm,GalLSTM)
    elif test "$section" = table; then
      # All 1000 calls at every size, so that the times are comparable with those of lstms.pth.
      options+=(--steps 1000 --rounds 3)
    fi
    example "$scratch/out" speed "${options[@]}"
    printf '## %s\n\n' "$section" >> "$scratch/body"
    shown text "cargo run --release --example speed -- ${options[*]}" "$scratch/out" >> "$scratch/body"
    echo >> "$scratch/body"
  done
  write_block docs/results/speed.md speed "$scratch/body"
}

measure_bf16() {
  local options=(--cases 1,500,512,512 1,200,1024,1024 1,100,2048,2048 --rounds 7)
  test -z "$try" || options=(--cases 1,5,16,16 --rounds 1)
  options+=(--modes inference --models lstm,lstm-bf16)
  example "$scratch/out" speed "${options[@]}"
  shown text "cargo run --release --example speed -- ${options[*]}" "$scratch/out" > "$scratch/body"
  write_block docs/results/bf16.md bf16 "$scratch/body"
}

measure_lengths() {
  cargo bench --locked --quiet --bench lengths > "$scratch/out"
  shown text "cargo bench --bench lengths" "$scratch/out" > "$scratch/body"
  write_block docs/results/lengths.md lengths "$scratch/body"
}

has_peers() { "$python" -c 'import torch, onnx, onnxruntime, numpy' 2> /dev/null; }

measure_peers() {
  if ! has_peers; then
    echo "needs Python with the packages of benches/peers/requirements.txt (RECURRENT_PYTHON)"
    return 77
  fi
  cargo build --release --locked --quiet --example speed
  local grid=(--rounds 4 --budget 0.2 --sections grid)
  local rest=(--rounds 3 --budget 0.2 --sections variants memory linearity)
  if test -n "$try"; then
    grid=(--rounds 1 --budget 0 --sections grid --cases 2,5,8,16)
    rest=(--rounds 1 --budget 0 --sections variants memory linearity --cases 2,5,8,16 --lengths 5)
  fi
  {
    "$python" -c 'import torch, onnxruntime
print(f"torch {torch.__version__}, onnxruntime {onnxruntime.__version__}, two threads on each side.\n")'
    "$python" benches/peers/compare.py --quiet "${grid[@]}" > "$scratch/out"
    shown markdown "python benches/peers/compare.py ${grid[*]}" "$scratch/out"
    echo
    "$python" benches/peers/compare.py --quiet "${rest[@]}" > "$scratch/out"
    shown markdown "python benches/peers/compare.py ${rest[*]}" "$scratch/out"
  } > "$scratch/body"
  write_block docs/results/peers.md peers "$scratch/body"
}

measure_devices() {
  if ! command -v "$python" > /dev/null; then
    echo "needs Python (RECURRENT_PYTHON)"
    return 77
  fi
  cargo build --release --locked --quiet --features ndarray --example speed
  local options=(--rounds 4 --budget 0.15 --sections devices --against ndarray)
  test -z "$try" || options=(--rounds 1 --budget 0 --cases 2,5,8,16 --sections devices --against ndarray)
  "$python" benches/peers/compare.py --quiet "${options[@]}" > "$scratch/out"
  {
    echo 'Built with `--features ndarray`.'
    echo
    shown markdown "python benches/peers/compare.py ${options[*]}" "$scratch/out"
  } > "$scratch/body"
  write_block docs/results/peers.md devices "$scratch/body"
}

measure_build() {
  if test -n "$try"; then
    echo "has no small settings: everything is built from an empty folder"
    return 77
  fi
  local seconds run packages timings started
  cargo fetch --locked --quiet
  started=$SECONDS
  CARGO_TARGET_DIR=$scratch/target cargo build --release --locked --quiet --example capacity --timings
  seconds=$((SECONDS - started))
  started=$SECONDS
  "$scratch/target/release/examples/capacity" --quiet --out "$scratch/capacity" > /dev/null
  run=$((SECONDS - started))
  packages=$(cargo tree --locked -p recurrent-bench -e normal,build --prefix none | awk '{ print $1, $2 }' \
    | sort -u | grep -c .)
  # The crates that take longest: name and duration are lines of their own in the report.
  timings=$(awk -F'"' '
    /^ *"name":/ { name = $4 }
    /^ *"duration":/ { split($0, a, ": "); sum[name] += a[2] }
    END { for (name in sum) printf "%.0f %s\n", sum[name], name }
  ' "$scratch"/target/cargo-timings/cargo-timing.html | sort -rn | sed -n 1,5p)
  {
    printf '```sh\ncargo build --release --example capacity --timings   # empty target folder, crates downloaded\n```\n\n'
    printf '| | |\n|---|---|\n'
    printf '| clean build | %s s |\n' "$seconds"
    while read -r time name; do printf '| of which `%s` | %s s |\n' "$name" "$time"; done <<< "$timings"
    printf '| run of the main job | %s s |\n' "$run"
    printf '| packages in the tree (`cargo tree -p recurrent-bench -e normal,build`) | %s |\n' "$packages"
  } > "$scratch/body"
  write_block docs/results/build.md build "$scratch/body"
}

# The log of .ci/gpu-software.sh as tables.
gpu_tables() { # log
  awk '
    /^== .* on / { stage = $2; device = $4 }
    / launches per step, forward / {
      split($0, half, ": launches per step, forward ")
      split(half[2], number, /[^0-9.]+/)
      counts = counts sprintf("| %s | %s | %s | %s | %s |\n", half[1], number[1], number[2], number[3], number[4])
    }
    /^test result: / {
      match($0, /[0-9]+ passed/); passed = substr($0, RSTART, RLENGTH)
      match($0, /finished in .*/); time = substr($0, RSTART + 12)
      runs = runs sprintf("| `--test %s` on `%s` | %s | %s |\n", stage, device, passed, time)
    }
    END {
      printf "| launches per step | fused, forward | backward | composed scan, forward | backward |\n"
      printf "|---|---|---|---|---|\n%s\n", counts
      printf "| what | result | time |\n|---|---|---|\n%s", runs
    }
  ' "$1"
}

measure_gpu() {
  if test -n "$try"; then
    echo "has no small settings"
    return 77
  fi
  local status=0
  .ci/gpu-software.sh > "$scratch/log" 2> "$scratch/errors" || status=$?
  if test "$status" = 77; then
    echo "needs a software Vulkan driver: $(tail -n 1 "$scratch/errors")"
    return 77
  elif test "$status" != 0; then
    tail -n 20 "$scratch/log" "$scratch/errors" >&2
    return 1
  fi
  {
    printf '```sh\n.ci/gpu-software.sh\n```\n\n'
    gpu_tables "$scratch/log"
  } > "$scratch/body"
  write_block docs/results/gpu.md gpu "$scratch/body"
}

not_measured=()
for part in "${wanted[@]}"; do
  printf '== %s, %s\n' "$part" "$(page_of "$part")"
  # A process of its own, in which an error ends the part. Not with `||`, in which bash goes on after errors.
  set +e
  (set -e; "measure_$part") > "$scratch/said"
  status=$?
  set -e
  cat "$scratch/said"
  if test "$status" = 77; then
    not_measured+=("$part, $(page_of "$part"): $(tail -n 1 "$scratch/said")")
  elif test "$status" != 0; then
    fail "the part $part failed; its page is as it was"
  fi
done

if test "${#not_measured[@]}" -gt 0 || test $# = 0; then
  echo
  echo "Not measured here:"
  if test "${#not_measured[@]}" -gt 0; then printf '  %s\n' "${not_measured[@]}"; fi
  if test $# = 0; then
    echo "Measured by hand, each needs:"
    sed '/^$/d; s/^/  /' <<< "$by_hand"
  fi
fi
# What was asked for by name was not done.
if test $# -gt 0 && test "${#not_measured[@]}" -gt 0; then exit 1; fi
