#!/usr/bin/env bash
# Rules and alerts by promtool, then a real Prometheus that scrapes both planes of a running demo
# while it is called: both targets are up, what the dashboards ask for parses, calls are counted.
set -euo pipefail
cd "$(dirname -- "$0")/../.."
. deploy/test/lib.sh

promtool check rules deploy/observability/prometheus/rules.yaml
promtool test rules deploy/observability/prometheus/rules.test.yaml

open_run prometheus
BIN=$(target_dir)/debug
[ -n "${WEIR_DEMO_BUILT:-}" ] || cargo build --quiet -p weir
data=$(free_port); control=$(free_port); web=$(free_port)
spawn weir "$BIN/weir" dev --data-dir "$RUN/data" --listen 127.0.0.1:0 --admin-listen 127.0.0.1:0 \
  --metrics-listen "127.0.0.1:$data" --control-metrics-listen "127.0.0.1:$control" \
  --ready-file "$RUN/ready.json"
wait_for 60 "weir dev" test -s "$RUN/ready.json"
url=$(sed -n 's/.*"url": "\(http[^"]*\)".*/\1/p' "$RUN/ready.json" | head -1)

mkdir -p "$RUN/rules"
cp deploy/observability/prometheus/rules.yaml "$RUN/rules/"
cat >"$RUN/prometheus.yaml" <<YAML
global: {scrape_interval: 1s, evaluation_interval: 1s}
rule_files: [$RUN/rules/rules.yaml]
scrape_configs:
  - job_name: weir-data-plane
    static_configs: [{targets: ["127.0.0.1:$data"]}]
  - job_name: weir-control-plane
    static_configs: [{targets: ["127.0.0.1:$control"]}]
YAML
spawn prometheus prometheus --config.file "$RUN/prometheus.yaml" --storage.tsdb.path "$RUN/tsdb" \
  --web.listen-address "127.0.0.1:$web" --log.level warn

# ask QUERY: the number of series and the first value, `2 1` for instance.
ask() {
  curl -sf --get "http://127.0.0.1:$web/api/v1/query" --data-urlencode "query=$1" |
    python3 -c 'import json,sys; r=json.load(sys.stdin)["data"]["result"]; print(len(r), r[0]["value"][1] if r else "-")' 2>/dev/null
}
is() { [ "$(ask "$1")" = "$2" ]; }
at_least() { python3 -c 'import sys; sys.exit(not float(sys.argv[1].split()[1].replace("-", "0")) >= float(sys.argv[2]))' "$(ask "$1")" "$2"; }

wait_for 60 "both planes to be scraped" is 'sum(up)' '1 2'
refused_calls() {
  for _ in 1 2 3 4 5 6 7 8 9 10; do
    curl -s -o "$RUN/answer" -X POST "$url/nowhere/mcp" -H 'content-type: application/json' \
      -H 'accept: application/json, text/event-stream' -d '{}'
  done
}
refused_calls
wait_for 30 "refusals to be counted" at_least 'sum(weir_calls_total{blame="client"})' 10
# A rate needs a series to move after it was first seen.
refused_calls
wait_for 30 "more refusals" at_least 'sum(weir_calls_total{blame="client"})' 20
wait_for 90 "the rules to be evaluated" is 'weir:calls:failed_ratio_rate5m' '1 0'
wait_for 30 "the runtime to be seen" at_least 'sum(weir_tokio_workers)' 1

# Every question of every dashboard parses, whether it has an answer yet or not.
python3 - deploy/observability/grafana/*.json <<'PY' >"$RUN/queries"
import json, sys
for path in sys.argv[1:]:
    for panel in json.load(open(path))["panels"]:
        for target in panel["targets"]:
            print(target["expr"].replace("$__rate_interval", "1m").replace("$group", ".*").replace("$server", ".*"))
PY
asked=0
while read -r query; do
  ask "$query" >"$RUN/answer" || die "a dashboard asks what Prometheus does not take: $query"
  asked=$((asked + 1))
done <"$RUN/queries"
wrong=$(curl -sf "http://127.0.0.1:$web/api/v1/rules" |
  python3 -c 'import json,sys; print(sum(r["health"] == "err" for g in json.load(sys.stdin)["data"]["groups"] for r in g["rules"]))')
[ "$wrong" = 0 ] || die "$wrong rules cannot be evaluated"
echo "prometheus: 2 targets up, $asked questions of dashboards answered, every rule evaluated"
