# Shared by the scripts of this folder; sourced, not run. Bash.
#
# A run has one folder, $RUN, under the system's folder for temporary files. Background processes
# are started by `spawn`, each in a process group of its own, and noted in $RUN/groups. They end in
# three ways: `stop_all` (a trap of the run), or, when the run itself was killed outright, the
# watchdog that `open_run` starts beside it. Nothing is ever ended by name.

say() { printf '\n== %s\n' "$*"; }
die() { printf 'error: %s\n' "$*" >&2; exit 1; }

# Where downloads are kept between runs. A machine without it passes too.
CACHE=${XDG_CACHE_HOME:-$HOME/.cache}/weir-test

# A loopback port that nobody listens on now, below the range that clients are given.
free_port() {
  local port
  for _ in $(seq 1 200); do
    port=$((20000 + (RANDOM * 32768 + RANDOM) % 12000))
    port_answers "$port" || { echo "$port"; return 0; }
  done
  die "no free port on 127.0.0.1 between 20000 and 32000"
}

port_answers() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

# wait_for SECONDS WHAT COMMAND...: until the command succeeds.
wait_for() {
  local seconds=$1 what=$2 end
  shift 2
  end=$((SECONDS + seconds))
  until "$@"; do
    [ $SECONDS -lt $end ] || { printf 'error: waited %ss for %s\n' "$seconds" "$what" >&2; return 1; }
    sleep 0.1
  done
}

# Makes $RUN, which KEEP_RUN=1 keeps for looking at, and sees to it that nothing outlives this shell.
open_run() {
  RUN=$(mktemp -d "${TMPDIR:-/tmp}/weir-$1.XXXXXX")
  : >"$RUN/groups"
  trap 'stop_all' EXIT
  trap 'exit 129' HUP
  trap 'exit 130' INT
  trap 'exit 143' TERM
  setsid bash -c '
    while kill -0 "$1" 2>/dev/null; do sleep 1; done
    while read -r group; do kill -KILL -- "-$group" 2>/dev/null; done <"$2/groups" 2>/dev/null
    [ -n "${KEEP_RUN:-}" ] || rm -rf "$2"
  ' watchdog $$ "$RUN" </dev/null >/dev/null 2>&1 &
}

# spawn NAME COMMAND...: in the background, output to $RUN/NAME.log; its pid, which is its
# group's too, in $SPAWNED.
spawn() {
  local name=$1
  shift
  setsid "$@" </dev/null >"$RUN/$name.log" 2>&1 &
  SPAWNED=$!
  echo "$SPAWNED" >>"$RUN/groups"
}

alive() { kill -0 "$1" 2>/dev/null; }

# stop GROUP: ask, wait a little, insist.
stop() {
  kill -TERM -- "-$1" 2>/dev/null || return 0
  for _ in $(seq 1 50); do
    kill -0 -- "-$1" 2>/dev/null || return 0
    sleep 0.1
  done
  kill -KILL -- "-$1" 2>/dev/null || true
}

stop_all() {
  local status=$? group
  trap - EXIT
  [ -n "${RUN:-}" ] && [ -d "$RUN" ] || return $status
  while read -r group; do stop "$group"; done <"$RUN/groups"
  [ -n "${KEEP_RUN:-}" ] || rm -rf "$RUN"
  return $status
}

# The folder that cargo builds into.
target_dir() {
  cargo metadata --format-version 1 --no-deps | sed -n 's/.*"target_directory":"\([^"]*\)".*/\1/p'
}
