#!/usr/bin/env bash
# What `make test` leaves out for time: the conformance suite across eras and over two proxies, other
# people's servers and clients, also over two proxies, identity providers, traces in a real Jaeger, and
# chaos: everything is killed under load. Ends with `N passed, N failed`.
#
# BUDGET=SECONDS leaves out what no longer fits, and says so; without it everything runs.
set -euo pipefail
cd "$(dirname -- "$0")/../.."
. deploy/test/lib.sh

passed=0
failed=0
broken=()
begun=$SECONDS

# part SECONDS NAME COMMAND...: a script that ends with `N passed, N failed`; SECONDS is what it takes
# on two cores, with room.
part() {
  local takes=$1 name=$2 log=$RUN/part.log ok bad
  shift 2
  if [ -n "${BUDGET:-}" ] && [ $((SECONDS - begun + takes)) -gt "$BUDGET" ]; then
    echo "-- $name: left out, it takes $takes s"
    return 0
  fi
  say "$name"
  "$@" 2>&1 | tee "$log" || true
  read -r ok bad < <(sed -n 's/^\([0-9]*\) passed, \([0-9]*\) failed$/\1 \2/p' "$log" | tail -n 1) || true
  passed=$((passed + ${ok:-0}))
  failed=$((failed + ${bad:-1}))
  [ "${bad:-1}" = 0 ] || broken+=("$name")
}

./deploy/test/install.sh
open_run long
[ -n "${WEIR_DEMO_BUILT:-}" ] || cargo build --quiet --workspace
export WEIR_DEMO_BUILT=1
part 240 "other people's servers and clients" ./deploy/test/software-test.sh
part 240 "conformance across eras, with other SDKs, and as a client" env TOPOLOGIES="C D G H I J F" ./deploy/test/conformance.sh
part 420 "conformance over two proxies" env PROXIES=2 ./deploy/test/conformance.sh
part 180 "the SDKs of Python, TypeScript and Rust log in" ./deploy/test/long/sdk-login.sh
part 180 "revocations over two proxies" ./deploy/test/long/revocation.sh debug 5
part 240 "Keycloak as an issuer" ./deploy/test/long/keycloak.sh
part 90 "traces in a real Jaeger" ./deploy/test/long/jaeger.sh
part 120 "consumers of the audit topic" ./deploy/test/long/siem.sh
part 480 "chaos" ./deploy/test/long/chaos.sh
part 240 "other people's software over two proxies" env PROXIES=2 ./deploy/test/software-test.sh

for name in "${broken[@]:-}"; do [ -z "$name" ] || echo "failed: $name"; done
echo
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
