#!/usr/bin/env bash
# The official Python SDK logs in through the gateway and lists tools: discovery, registration,
# consent, code, tokens, by nobody's code but its own. Ends with `N passed, N failed`.
set -euo pipefail
cd "$(dirname -- "$0")/../../.."
. deploy/test/lib.sh

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
open_run sdk-login
. deploy/test/sign-in.sh

say "log in"
failed=0
"$PYTHON" deploy/test/long/sdk_login.py "$gateway/lab/mcp" || failed=1
printf '\n%s passed, %s failed\n' "$((1 - failed))" "$failed"
[ "$failed" = 0 ]
