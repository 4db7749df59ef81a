#!/usr/bin/env bash
# Scans an endpoint with mcp-authlab, with the gateway's own authorization server as the issuer: the
# scanner registers, logs in (a small script plays the person), and looks for what it can get away
# with. The grade has to be A. Ends with `N passed, N failed`.
set -euo pipefail
cd "$(dirname -- "$0")/../.."
. deploy/test/lib.sh

version=0.2.2

fetch_scanner() {
  local home=$CACHE/authlab-$version partial
  mkdir -p "$CACHE"
  exec 9>"$CACHE/authlab.lock"
  flock 9
  if [ ! -x "$home/bin/mcp-authlab" ]; then
    rm -rf "$home"
    python3 -m venv "$home" >&2 && "$home/bin/pip" -q install "mcp-authlab==$version" >&2 || {
      rm -rf "$home"
      die "mcp-authlab cannot be fetched (Debian: apt-get install python3-venv)"
    }
  fi
  exec 9>&-
  SCANNER=$home/bin/mcp-authlab
}

say "mcp-authlab $version"
fetch_scanner
open_run authlab
. deploy/test/sign-in.sh
say "log in"
export HOME=$RUN/home
mkdir "$HOME"
BROWSER="python3 $PWD/deploy/test/person.py %s" "$SCANNER" login "$gateway/lab/mcp" --no-color \
  --foreign-resource "$gateway/other/mcp" </dev/null

say "scan"
failed=0
"$SCANNER" scan "$gateway/lab/mcp" --fail-under A --no-color --format text | tee "$RUN/report" || failed=1
counts=$(sed -n 's/.*\b\([0-9]\+\) pass.*/\1/p' "$RUN/report" | tail -n 1)
printf '\n%s passed, %s failed\n' "${counts:-0}" "$failed"
[ "$failed" = 0 ]
