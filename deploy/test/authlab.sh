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
[ -n "${WEIR_DEMO_BUILT:-}" ] || cargo build --quiet -p weir -p weir-peers
PATH=$(target_dir)/debug:$PATH
export PATH
member() { sed -n "s/.*\"$1\" *: *\"\([^\"]*\)\".*/\1/p" "$2" | head -n 1; }

say "identity provider, MCP server, gateway"
port=$(free_port)
spawn oidc python3 deploy/test/oidc.py "$port" "$RUN"
spawn server demo-server http --ready-file "$RUN/server.json"
wait_for 20 "the identity provider" port_answers "$port" || { cat "$RUN/oidc.log"; exit 1; }
wait_for 20 "the MCP server" test -s "$RUN/server.json" || { cat "$RUN/server.log"; exit 1; }
mkdir "$RUN/config"
sed -e "s|ISSUER|http://127.0.0.1:$port|" -e "s|SERVER|$(member url "$RUN/server.json")|" \
  deploy/test/authlab.yaml >"$RUN/config/all.yaml"
spawn weir weir dev --data-dir "$RUN/data" --apply "$RUN/config" \
  --listen 127.0.0.1:0 --admin-listen 127.0.0.1:0 --ready-file "$RUN/ready.json"
wait_for 60 "weir dev" test -s "$RUN/ready.json" || { cat "$RUN/weir.log"; exit 1; }
gateway=$(member url "$RUN/ready.json")

say "log in"
export HOME=$RUN/home
mkdir "$HOME"
python3 deploy/test/person.py "$SCANNER" login "$gateway/lab/mcp" --no-browser --no-color \
  --foreign-resource "$gateway/other/mcp" </dev/null

say "scan"
failed=0
"$SCANNER" scan "$gateway/lab/mcp" --fail-under A --no-color --format text | tee "$RUN/report" || failed=1
counts=$(sed -n 's/.*\b\([0-9]\+\) pass.*/\1/p' "$RUN/report" | tail -n 1)
printf '\n%s passed, %s failed\n' "${counts:-0}" "$failed"
[ "$failed" = 0 ]
