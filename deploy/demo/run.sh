#!/usr/bin/env bash
# `make demo`: one governed call end to end, and the calls that are not let through.
#
# Builds Weir and two real MCP servers, starts `weir dev` with deploy/examples/demo, lets an agent
# on another MCP implementation tell its story against it, prints the audit records, and leaves
# nothing running. KEEP=1 keeps everything running until Ctrl-C. WEIR_DEMO_BUILT=1 skips the
# build. Needs Rust and a C compiler; without OpenSSL headers or a C++ compiler it builds without
# the Kafka sink, which the demo does not use.
set -euo pipefail
cd "$(dirname -- "$0")/../.."
. deploy/test/lib.sh

build() {
  local features=()
  if ! command -v g++ >/dev/null || ! pkg-config --exists openssl 2>/dev/null; then
    echo "(no C++ compiler or no OpenSSL headers: building without the Kafka sink)"
    features=(--no-default-features)
  fi
  cargo build -p weir -p weir-peers "${features[@]}"
}

# The one member NAME of a flat JSON file.
member() { sed -n "s/.*\"$1\" *: *\"\([^\"]*\)\".*/\1/p" "$2" | head -n 1; }

[ -n "${WEIR_DEMO_BUILT:-}" ] || { say "build"; build; }
open_run demo
PATH=$(target_dir)/debug:$PATH
export PATH

say "a help desk over HTTP, which demands a token that no agent has"
spawn tickets env DEMO_SERVER_TOKEN=only-the-gateway-knows-this \
  demo-server --flavour tickets http --ready-file "$RUN/tickets.json"
wait_for 20 "the help desk" test -s "$RUN/tickets.json" || { cat "$RUN/tickets.log"; exit 1; }
tickets=$(member url "$RUN/tickets.json")
echo "$tickets"

say "weir dev: both planes in one process"
mkdir "$RUN/config"
for file in deploy/examples/demo/*.yaml; do
  sed "s|http://127.0.0.1:7900/mcp|$tickets|" "$file" >"$RUN/config/$(basename "$file")"
done
spawn weir weir dev --data-dir "$RUN/data" --apply "$RUN/config" \
  --listen "${LISTEN:-127.0.0.1:0}" --admin-listen "${ADMIN_LISTEN:-127.0.0.1:0}" \
  --ready-file "$RUN/ready.json"
gateway=$SPAWNED
ready_or_dead() { [ -s "$RUN/ready.json" ] || ! alive "$gateway"; }
wait_for 60 "weir dev" ready_or_dead || { cat "$RUN/weir.log"; exit 1; }
[ -s "$RUN/ready.json" ] || { cat "$RUN/weir.log"; die "weir dev ended before it served"; }
WEIR_URL=$(member admin_url "$RUN/ready.json")
WEIR_TOKEN=$(member admin_token "$RUN/ready.json")
url=$(member url "$RUN/ready.json")
export WEIR_URL WEIR_TOKEN
weir nodes
weir get Server -g demo

say "tokens for two callers"
SUPPORT_TOKEN=$(weir token create support -g demo --quiet --wait)
AUDITOR_TOKEN=$(weir token create auditor -g demo --quiet --wait)
export SUPPORT_TOKEN AUDITOR_TOKEN
echo "support may do everything but large refunds; auditor may read"

say "the agent's story, told over MCP at $url/demo/mcp"
status=0
demo-agent --url "$url/demo/mcp" || status=$?

say "what the audit trail says of it"
weir audit tail --dir "$RUN/data/audit" --no-follow || status=$?

if [ $status -eq 0 ]; then
  say "what you saw"
  cat <<STORY
Two MCP servers, one on stdio and one over HTTP, behind one URL. support saw six tools and auditor
three, because lists show only what the caller may call. A refund of 5 went through; one of 250
met a policy that reads the arguments; one of -5 for the reason "because" never left the gateway,
because it breaks the tool's own schema. auditor was not told that refunds exist at all. The help
desk was called with a credential that neither agent knows. Every one of these requests, refused
ones too, is a line of the audit trail above.
STORY
fi
if [ -n "${KEEP:-}" ]; then
  say "still running; Ctrl-C ends it"
  echo "endpoint      $url/demo/mcp"
  echo "support       $SUPPORT_TOKEN"
  echo "operator      export WEIR_URL=$WEIR_URL WEIR_TOKEN=$WEIR_TOKEN"
  sed -n '/^Connect/,$p' "$RUN/weir.log" | sed '/^[0-9-]*T[0-9:.]*Z /d'
  while alive "$gateway"; do sleep 1; done
fi
exit $status
