#!/usr/bin/env bash
# Installs what the tests need and this machine lacks: a C++ compiler and OpenSSL headers for the
# Kafka client, etcd, a Java runtime with Maven for a real Kafka broker, npm for the conformance
# suite, Prometheus for alerts. Debian and its kin.
set -euo pipefail
. "$(dirname -- "$0")/lib.sh"

missing=()
need() { # need PACKAGE COMMAND...: the package, when the command fails
  local package=$1
  shift
  "$@" >/dev/null 2>&1 || missing+=("$package")
}
java_17() { [ "$(java -version 2>&1 | sed -n 's/.*version "\([0-9]*\).*/\1/p')" -ge 17 ]; }

need make command -v make
need gcc command -v cc
need g++ command -v g++
need pkg-config command -v pkg-config
need libssl-dev pkg-config --exists openssl
need etcd-server command -v etcd
need etcd-client command -v etcdctl
need openjdk-17-jre-headless java_17
need maven command -v mvn
need npm command -v npm
need git command -v git
need python3-venv python3 -c 'import ensurepip, venv'
need prometheus command -v promtool
need python3 command -v python3
need curl command -v curl
[ ${#missing[@]} -gt 0 ] || exit 0

command -v apt-get >/dev/null || die "install these yourself, this machine has no apt-get: ${missing[*]}"
as_root=()
[ "$(id -u)" = 0 ] || as_root=(sudo)
say "installing ${missing[*]}"
export DEBIAN_FRONTEND=noninteractive
"${as_root[@]}" apt-get update -qq
"${as_root[@]}" apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
