# An identity provider, an MCP server, and a gateway through which people sign in. Sourced after
# lib.sh and open_run; sets `gateway` to its URL. The groups are those of authlab.yaml.

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
