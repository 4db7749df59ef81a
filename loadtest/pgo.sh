#!/usr/bin/env bash
# The proxy as it is shipped: built with the profile `dist` and with what a training run saw of it.
#
#   loadtest/pgo.sh
#
# Builds the proxy so that it counts its branches, runs loadtest/plans/train.toml against it, and
# builds it again with the counts. The program: $(target_dir)/pgo/dist/weir-data-plane. Wants
# `rustup component add llvm-tools`. With NO_TRAIN=1 the counts of the run before are used.
set -euo pipefail
cd "$(dirname -- "$0")/.."
. deploy/test/lib.sh
. loadtest/topology.sh

out=$(target_dir)/pgo
counts=$out/counts
tool=$(rustc --print target-libdir)/../bin/llvm-profdata
[ -x "$tool" ] || { echo "llvm-profdata is missing: rustup component add llvm-tools" >&2; exit 1; }
proxy=(--quiet -p data-plane --bin weir-data-plane)

if [ -z "${NO_TRAIN:-}" ]; then
  rm -rf "$counts" && mkdir -p "$counts"
  say "build that counts"
  RUSTFLAGS="-Cprofile-generate=$counts" CARGO_TARGET_DIR=$out/counting cargo build --release "${proxy[@]}"
  [ -n "${NO_BUILD:-}" ] || cargo build --quiet --release --bins -p weir -p control-plane -p weir-loadtest
  # Programs that ran while it was built have counted, too.
  rm -f "$counts"/*.profraw
  say "training"
  open_run training
  PATH=$out/counting/release:${BIN:-$(target_dir)/release}:$PATH
  start_topology
  weir-loadtest run loadtest/plans/train.toml --json "$RUN/training.json" >/dev/null
  # The counts are written as the program ends by itself.
  stop "$PROXY_PID"
  "$tool" merge -o "$counts/merged.profdata" "$counts"/*.profraw
fi
say "build with the counts"
RUSTFLAGS="-Cprofile-use=$counts/merged.profdata" CARGO_TARGET_DIR=$out cargo build --profile dist "${proxy[@]}"
ls -l "$out/dist/weir-data-plane"
