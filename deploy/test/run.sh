#!/usr/bin/env bash
# The whole test run: what is installed, formatting, lints, every test against real etcd and
# Kafka, the demo told as a test, everything killed under load once, a scan of the gateway's authorization,
# and the public MCP conformance suite with and without the gateway. Ends with `N passed, N failed`.
#
# Tests that need a component read WEIR_TEST_ETCD or WEIR_TEST_KAFKA. Without them they say that
# they were left out; WEIR_REQUIRE_REAL=1, which is set here, makes that a failure.
set -euo pipefail
cd "$(dirname -- "$0")/../.."
. deploy/test/lib.sh

passed=0
failed=0
broken=()

# step NAME COMMAND...: one check that passes or fails as a whole.
step() {
  local name=$1 begun=$SECONDS
  shift
  say "$name"
  if "$@"; then
    passed=$((passed + 1))
    echo "-- $name: passed after $((SECONDS - begun)) s"
  else
    failed=$((failed + 1))
    broken+=("$name")
    echo "-- $name: FAILED after $((SECONDS - begun)) s"
  fi
}

# Counts what cargo says of each test binary, so that the last line tells of tests, not binaries.
cargo_tests() {
  say "tests"
  local log=$RUN/tests.log status=0 begun=$SECONDS
  cargo test --workspace --no-fail-fast 2>&1 | tee "$log" || status=$?
  local ok bad
  ok=$(sed -n 's/^test result: .* \([0-9]*\) passed; .*/\1/p' "$log" | awk '{ n += $1 } END { print n + 0 }')
  bad=$(sed -n 's/^test result: .* \([0-9]*\) failed; .*/\1/p' "$log" | awk '{ n += $1 } END { print n + 0 }')
  # A binary that does not build or dies has no result line, and must not pass as silence.
  if [ $status -ne 0 ] && [ "$bad" -eq 0 ]; then bad=1; fi
  passed=$((passed + ok))
  failed=$((failed + bad))
  [ "$bad" -eq 0 ] || broken+=("$bad of cargo test")
  echo "-- tests: $ok passed, $bad failed after $((SECONDS - begun)) s"
}

# Every test that the page of support names has passed in this run.
proven() {
  local test missing=0
  while read -r test; do
    grep -qE "^test ([a-z_0-9]+::)*$test \.\.\. ok$" "$RUN/tests.log" || {
      echo "not proven: $test"
      missing=1
    }
  done < <(sed -n 's/^|.*| `\([a-z_0-9]*\)` in `.*` |$/\1/p' docs/reference/support.md)
  return $missing
}

open_run test
./deploy/test/install.sh
say "real components"
. deploy/test/components.sh
start_components
export WEIR_REQUIRE_REAL=1

step "formatting" cargo fmt --all --check
step "build" cargo build --workspace --all-targets --quiet
cargo_tests
step "what the page of support promises" proven
step "real components outlived the tests" components_alive
step "lints" cargo clippy --workspace --all-targets --quiet -- -D warnings
step "lints without the Kafka sink" \
  cargo clippy -p weir --no-default-features --quiet -- -D warnings
if command -v cargo-deny >/dev/null; then
  step "dependencies" cargo deny --offline --config .deny.toml check bans licenses sources
fi
step "demo" env WEIR_DEMO_BUILT=1 ./deploy/demo/run.sh
step "prometheus" env WEIR_DEMO_BUILT=1 ./deploy/test/prometheus.sh
step "chaos" env WEIR_DEMO_BUILT=1 SHORT=1 ./deploy/test/long/chaos.sh
step "authorization" env WEIR_DEMO_BUILT=1 ./deploy/test/authlab.sh
step "conformance" env WEIR_DEMO_BUILT=1 TOPOLOGIES="A B E" ./deploy/test/conformance.sh

# LONG_BUDGET=SECONDS: what `make test-long` adds, as far as it fits into that time from the start.
if [ -n "${LONG_BUDGET:-}" ]; then
  long=$RUN/long.log
  WEIR_DEMO_BUILT=1 BUDGET=$((LONG_BUDGET - SECONDS)) ./deploy/test/run-long.sh 2>&1 | tee "$long" || true
  read -r ok bad < <(sed -n 's/^\([0-9]*\) passed, \([0-9]*\) failed$/\1 \2/p' "$long" | tail -n 1) || true
  passed=$((passed + ${ok:-0}))
  failed=$((failed + ${bad:-1}))
  [ "${bad:-1}" = 0 ] || broken+=("make test-long")
fi

for name in "${broken[@]:-}"; do [ -z "$name" ] || echo "failed: $name"; done
echo
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
