#!/usr/bin/env bash
# A real Keycloak as an issuer of a group, beside a second one: discovery, groups and roles from its
# claims that decide who sees what, keys that rotate while calls flow, a disabled user, sessions that
# are signed out (the provider tells the gateway so), and people who log in through the gateway. Ends with `N passed, N failed`.
set -euo pipefail
cd "$(dirname -- "$0")/../../.."
. deploy/test/lib.sh

version=26.4.0

fetch_keycloak() {
  KEYCLOAK=$CACHE/keycloak-$version
  mkdir -p "$CACHE"
  exec 9>"$CACHE/keycloak.lock"
  flock 9
  if [ ! -x "$KEYCLOAK/bin/kc.sh" ]; then
    local partial
    for tool in mvn unzip java; do
      command -v "$tool" >/dev/null ||
        die "$tool is needed (Debian: apt-get install maven unzip openjdk-17-jre-headless)"
    done
    partial=$(mktemp -d "$CACHE/keycloak.XXXXXX")
    (cd "$partial" && mvn -q -B org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy \
      -Dartifact="org.keycloak:keycloak-quarkus-dist:$version:zip" -DoutputDirectory=. &&
      unzip -q ./*.zip) >&2 || { rm -rf "$partial"; die "Keycloak cannot be fetched"; }
    mv "$partial/keycloak-$version" "$KEYCLOAK"
    rm -rf "$partial"
  fi
  exec 9>&-
}

say "Keycloak $version"
fetch_keycloak
open_run keycloak
[ -n "${WEIR_DEMO_BUILT:-}" ] || cargo build --quiet -p weir -p weir-peers
PATH=$(target_dir)/debug:$PATH
export PATH

# Keycloak writes into its own folder: a copy.
cp -r "$KEYCLOAK" "$RUN/kc"
mkdir -p "$RUN/kc/data/import"
port=$(free_port) gateway_port=$(free_port)
sed "s|GATEWAY|http://127.0.0.1:$gateway_port|" deploy/test/long/keycloak-realm.json \
  >"$RUN/kc/data/import/weir-realm.json"
issuer=http://127.0.0.1:$port/realms/weir
KC_BOOTSTRAP_ADMIN_USERNAME=admin KC_BOOTSTRAP_ADMIN_PASSWORD=admin KC_HTTP_PORT=$port \
  JAVA_OPTS_KC_HEAP=-Xmx512m spawn keycloak bash "$RUN/kc/bin/kc.sh" start-dev \
  --http-host 127.0.0.1 --import-realm
answers() { curl -sf "$issuer/.well-known/openid-configuration" >/dev/null; }
wait_for 180 "Keycloak" answers || { tail -n 30 "$RUN/keycloak.log"; exit 1; }

say "gateway"
spawn server demo-server --flavour tickets http --ready-file "$RUN/server.json"
wait_for 20 "the MCP server" test -s "$RUN/server.json" || { cat "$RUN/server.log"; exit 1; }
member() { sed -n "s/.*\"$1\" *: *\"\([^\"]*\)\".*/\1/p" "$2" | head -n 1; }
mkdir "$RUN/config"
sed -e "s|ISSUER|$issuer|" -e "s|SERVER|$(member url "$RUN/server.json")|" \
  deploy/test/long/keycloak.yaml >"$RUN/config/all.yaml"
spawn weir weir dev --data-dir "$RUN/data" --apply "$RUN/config" \
  --listen "127.0.0.1:$gateway_port" --admin-listen 127.0.0.1:0 --ready-file "$RUN/ready.json"
wait_for 60 "weir dev" test -s "$RUN/ready.json" || { cat "$RUN/weir.log"; exit 1; }
WEIR_URL=$(member admin_url "$RUN/ready.json")
WEIR_TOKEN=$(member admin_token "$RUN/ready.json")
export WEIR_URL WEIR_TOKEN
python3 deploy/test/long/keycloak.py "http://127.0.0.1:$port" "http://127.0.0.1:$gateway_port"
