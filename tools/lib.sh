# Sourced by ./start, ./check, ./dev and the scripts in tools/: where things are, and how to say things.
# shellcheck shell=bash
set -euo pipefail

KOGIA_ROOT="$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)"
# What is downloaded is kept here, shared by all clones of a user.
KOGIA_CACHE="${KOGIA_CACHE:-${XDG_CACHE_HOME:-${HOME:?HOME is not set}/.cache}/kogia}"
export KOGIA_ROOT KOGIA_CACHE
mkdir -p -- "$KOGIA_CACHE"
KOGIA_CACHE="$(cd -- "$KOGIA_CACHE" && pwd)"

say() { printf '%s\n' "$*" >&2; }
step() { printf '\n== %s\n' "$*" >&2; }
die() {
  printf 'error: %s\n' "$1" >&2
  shift
  for line in "$@"; do printf 'help:  %s\n' "$line" >&2; done
  exit 1
}

have() { command -v -- "$1" > /dev/null 2>&1; }

# version_at_least 1.85 1.96.0
version_at_least() { [ "$(printf '%s\n%s\n' "$1" "$2" | sort -V | head -n 1)" = "$1" ]; }

# Only one process fills a part of the cache; the others wait and then find it full.
# with_lock NAME COMMAND ARGUMENT...
with_lock() {
  local name="$1"
  shift
  (
    if ! flock -n 9; then
      say "waiting for another process that fills $KOGIA_CACHE ($name)"
      flock 9
    fi
    "$@"
  ) 9> "$KOGIA_CACHE/.$name.lock"
}

# The first cargo that is new enough (rustup's, then the system's), its folder put first on PATH.
readonly KOGIA_CARGO_VERSION=1.85
use_cargo() {
  local cargo version
  for cargo in "$(command -v cargo || true)" "${CARGO_HOME:-$HOME/.cargo}/bin/cargo" /usr/bin/cargo; do
    [ -x "$cargo" ] || continue
    version="$("$cargo" --version 2> /dev/null | cut -d ' ' -f 2)" || continue
    if [ -n "$version" ] && version_at_least "$KOGIA_CARGO_VERSION" "$version"; then
      PATH="$(dirname -- "$cargo"):$PATH"
      export PATH
      return 0
    fi
  done
  return 1
}

# As many jobs as there are cores, but no more than memory carries (about 1.2 GB each at worst).
build_jobs() {
  local cores by_memory
  cores="$(nproc)"
  by_memory="$(awk '/^MemAvailable/ {print int($2 / 1200000)}' /proc/meminfo 2> /dev/null || echo "$cores")"
  [ "${by_memory:-0}" -ge 1 ] || by_memory=1
  echo $((cores < by_memory ? cores : by_memory))
}

# build PRESET [TARGET...]: configures and builds; the whole preset if no target is named.
build() {
  local preset="$1" folder="$KOGIA_ROOT/build/$1" fresh=()
  shift
  use_cargo || true
  # A checkout that was moved or copied carries a cache of its old place.
  if [ -f "$folder/CMakeCache.txt" ] &&
    ! grep -qxF -- "CMAKE_HOME_DIRECTORY:INTERNAL=$KOGIA_ROOT" "$folder/CMakeCache.txt"; then
    fresh=(--fresh)
  fi
  (cd -- "$KOGIA_ROOT" && cmake --preset "$preset" "${fresh[@]}" -DKOGIA_CACHE_DIR="$KOGIA_CACHE" \
    --log-level=WARNING > /dev/null)
  cmake --build "$folder" --parallel "$(build_jobs)" ${1:+--target "$@"} >&2
}
