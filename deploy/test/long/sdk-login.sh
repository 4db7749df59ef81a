#!/usr/bin/env bash
# The official SDKs of Python, TypeScript (both generations) and Rust log in through the gateway and list
# tools: discovery, registration, consent, code, tokens, refreshing, by nobody's code but their own.
# Ends with `N passed, N failed`.
set -euo pipefail
cd "$(dirname -- "$0")/../../.."
. deploy/test/lib.sh
. deploy/test/software.sh

version=2.3.0

fetch_sdk() {
  local home=$CACHE/mcp-$version
  mkdir -p "$CACHE"
  exec 9>"$CACHE/mcp.lock"
  flock 9
  if [ ! -x "$home/bin/mcp" ]; then
    rm -rf "$home"
    python3 -m venv "$home" >&2 && "$home/bin/pip" -q install "mcp==$version" >&2 || {
      rm -rf "$home"
      die "the Python SDK cannot be fetched (Debian: apt-get install python3-venv)"
    }
  fi
  exec 9>&-
  PYTHON=$home/bin/python
}

say "the Python SDK $version"
fetch_sdk
m=@modelcontextprotocol
npm_packages sdk-login "$m/sdk@1.32.2" "$m/client@2.4.0"
export CARGO_TARGET_DIR=$CACHE/rmcp-login
cargo build --quiet --locked --manifest-path deploy/test/long/rmcp-login/Cargo.toml >&2
RMCP=$CARGO_TARGET_DIR/debug/rmcp-login
unset CARGO_TARGET_DIR
SCRIPTS=$PWD/deploy/test/long
open_run sdk-login
. deploy/test/sign-in.sh

say "log in"
{
  "$PYTHON" deploy/test/long/sdk_login.py "$gateway/lab/mcp" || echo "not ok the Python SDK logs in"
  for library in v1 v2; do
    (cd "$PACKAGES" && "$NODE" "$SCRIPTS/sdk_login.mjs" "$library" "$gateway/lab/mcp") || true
  done
  "$RMCP" "$gateway/lab/mcp" deploy/test/long/agree.py || true
} 2>&1 | tee "$RUN/checks"
passed=$(grep -c '^ok ' "$RUN/checks" || true)
failed=$(grep -c '^not ok ' "$RUN/checks" || true)
# Two generations with three checks each, two of Rust, and the Python SDK.
[ $((passed + failed)) = 9 ] || failed=$((failed + 1))
printf '\n%s passed, %s failed\n' "$passed" "$failed"
[ "$failed" = 0 ]
