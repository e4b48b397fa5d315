#!/usr/bin/env bash
# Installs what is missing to build Kogia: Debian packages, and two things that Debian 12 has too old.
#
#   tools/deps.sh [build] [test] [gcc] [dev] [arm]     default: build
#
# arm unpacks the libraries' arm64 packages into a root of their own in the cache, to cross-compile against.
# Asks for root (sudo) only when a package is missing. With everything there it touches no network.
# shellcheck source=tools/lib.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/lib.sh"

# command:package means: needed unless the command is there, wherever it came from.
build_packages=(
  clang-19 lld-19 libclang-rt-19-dev cc:gcc cmake:cmake ninja:ninja-build pkg-config:pkg-config ccache:ccache
  nlohmann-json3-dev libfmt-dev libspdlog-dev libsimdjson-dev libcli11-dev libutf8proc-dev libxxhash-dev
  libedit-dev libcurl4-openssl-dev libssl-dev libzstd-dev zlib1g-dev libtomlplusplus-dev
  python3:python3 python3-venv ca-certificates
)
test_packages=(libgtest-dev libgmock-dev npm:npm)
gcc_packages=(g++:g++)
dev_packages=(clang-format-19 clang-tidy-19 llvm-19 libbenchmark-dev)
arm_packages=(qemu-aarch64-static:qemu-user-static)

installed() { [ "$(dpkg-query -W -f='${db:Status-Status}' "$1" 2> /dev/null)" = installed ]; }

as_root() {
  if [ "$(id -u)" -eq 0 ]; then
    "$@"
  elif have sudo && { sudo -n true 2> /dev/null || [ -t 0 ]; }; then
    sudo "$@"
  else
    return 100
  fi
}

apt_get() {
  as_root env DEBIAN_FRONTEND=noninteractive apt-get -q -y -o DPkg::Lock::Timeout=600 \
    -o Dpkg::Use-Pty=0 --no-install-recommends "$@" >&2
}

candidate() { apt-cache policy "$1" 2> /dev/null | awk '/Candidate:/ && $2 != "(none)" {print $2}'; }

# The lists may be missing (a fresh container) or old (files gone from the mirror): one update mends both.
updated=no
update_lists() {
  [ "$updated" = no ] || return 0
  apt_get update
  updated=yes
}

install_packages() {
  local package status=0
  [ $# -gt 0 ] || return 0
  have apt-get || die "missing: $*" "Kogia installs its tools on Debian 12 and 13; on another system install them by hand"
  say "installing $*"
  as_root true || die "not root, and sudo is not there or wants a password without a terminal" \
    "ask for this once:  apt-get install $*"
  for package in "$@"; do
    [ -n "$(candidate "$package")" ] || update_lists
  done
  apt_get install "$@" || status=$?
  if [ "$status" -ne 0 ] && [ "$updated" = no ]; then
    update_lists
    status=0
    apt_get install "$@" || status=$?
  fi
  [ "$status" -eq 0 ] || die "apt-get could not install: $*" "read its message above"
}

install_missing() {
  local entry missing=()
  for entry in "$@"; do
    case "$entry" in
      *:*) have "${entry%%:*}" || installed "${entry#*:}" || missing+=("${entry#*:}") ;;
      *) installed "$entry" || missing+=("$entry") ;;
    esac
  done
  install_packages "${missing[@]}"
}

# Rust for the template shim: rustup's if new enough, else Debian's newest.
install_cargo() {
  use_cargo && return 0
  local name found
  for found in no yes; do
    for name in cargo cargo-web; do
      if version_at_least "$KOGIA_CARGO_VERSION" "$(candidate "$name" | sed 's/^[0-9]*://')"; then
        install_packages "$name" "${name/cargo/rustc}"
        use_cargo && return 0
      fi
    done
    [ "$found" = yes ] || update_lists
  done
  die "no cargo of version $KOGIA_CARGO_VERSION or later" "install rustup (Debian: apt-get install rustup; rustup default stable)"
}

# --- Highway's headers, 1.2 or later -----------------------------------------------------------------
# Debian 12 has 1.0.3, whose conversion to bf16 truncates. Debian 13's package cannot be installed there
# (it would remove libjxl's dependency), but its headers work: they are fetched through apt, which checks
# their signature, with lists of its own, and unpacked into the cache.

highway="$KOGIA_CACHE/deps/highway"

highway_version() {  # FOLDER that holds hwy/
  sed -n 's/^#define HWY_\(MAJOR\|MINOR\) \([0-9]*\)$/\2/p' "$1"/hwy/{highway,base}.h 2> /dev/null |
    paste -sd . -
}

highway_ready() {
  local include
  for include in "$highway/usr/include" /usr/include; do
    [ -d "$include/hwy" ] && version_at_least 1.2 "$(highway_version "$include")" && return 0
  done
  return 1
}

# The mirror this machine already uses for Debian, whatever form its sources are written in.
debian_mirror() {
  apt-get indextargets --format '$(REPO_URI) $(RELEASE) $(COMPONENT)' 'Identifier: Packages' |
    awk '$2 ~ /^(bookworm|trixie|stable|oldstable)$/ && $3 == "main" {print $1; exit}'
}

# In a sub-shell: makes the folder $work and an apt (private_apt) that has its lists, its cache and its
# idea of what is installed (nothing) there, for one suite and architecture, and trusts what Debian signed.
open_private_apt() {  # SUITE ARCHITECTURE
  local mirror keyring=/usr/share/keyrings/debian-archive-keyring.gpg
  mirror="$(debian_mirror)"
  [ -n "$mirror" ] || die "apt knows no mirror for Debian main" "add one to /etc/apt/sources.list.d and try again"
  [ -f "$keyring" ] || install_packages debian-archive-keyring
  mkdir -p -- "$KOGIA_CACHE/deps"
  # apt splits its options at blanks, so its folders live where there are none.
  work="$(TMPDIR='' mktemp -d /tmp/kogia-apt.XXXXXX)"
  trap 'rm -rf -- "$work"' EXIT
  mkdir -p "$work/lists/partial" "$work/cache/archives/partial"
  printf 'deb [signed-by=%s] %s %s main\n' "$keyring" "$mirror" "$1" > "$work/sources.list"
  : > "$work/status"
  apt_options=(-qq -o "Dir::Etc::sourcelist=$work/sources.list" -o Dir::Etc::sourceparts=-
    -o "Dir::State::lists=$work/lists" -o "Dir::State::status=$work/status" -o "Dir::Cache=$work/cache"
    -o "APT::Architecture=$2" -o "APT::Architectures::=$2" -o APT::Sandbox::User=root -o Debug::NoLocking=true
    -o Acquire::Languages=none -o Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false
    -o Acquire::IndexTargets::deb::Contents-deb::DefaultEnabled=false)
  cd "$work"
  private_apt update
}
private_apt() { apt-get "${apt_options[@]}" "$@" >&2; }

# Copied beside its place, then renamed: other processes see all of it or nothing.
put_in_place() {  # FOLDER PLACE
  rm -rf -- "$2" "$2.new"
  cp -r -- "$1" "$2.new"
  mv -T -- "$2.new" "$2"
}

unpack_highway() {
  highway_ready && return 0
  say "fetching Highway's headers"
  (
    open_private_apt trixie "$(dpkg --print-architecture)"
    private_apt download libhwy-dev
    dpkg-deb -x libhwy-dev_*.deb "$work/root"
    version_at_least 1.2 "$(highway_version "$work/root/usr/include")" || die "the package holds Highway $(highway_version "$work/root/usr/include"), expected 1.2 or later"
    put_in_place "$work/root" "$highway"
  )
}

install_highway() {
  highway_ready && return 0
  if [ "$(. /etc/os-release && echo "$ID $VERSION_ID")" = "debian 12" ]; then
    with_lock deps unpack_highway
  else
    install_packages libhwy-dev
  fi
  highway_ready || die "no Highway headers of version 1.2 or later" "unpack them to $highway/usr/include/hwy"
}

# --- the arm64 root ------------------------------------------------------------------------------------
# The C and C++ libraries, ours and what they depend on: what clang needs to cross-compile and qemu to run.

arm_root="$KOGIA_CACHE/deps/arm64"
arm_libraries=(libc6-dev nlohmann-json3-dev libfmt-dev libspdlog-dev libsimdjson-dev libcli11-dev libutf8proc-dev
  libedit-dev libcurl4-openssl-dev libssl-dev libzstd-dev zlib1g-dev libtomlplusplus-dev
  libgtest-dev libgmock-dev)

unpack_arm_root() {
  local suite libraries=("${arm_libraries[@]}")
  suite="$(. /etc/os-release && echo "${VERSION_CODENAME:-}")"
  case "$suite" in
    bookworm) libraries+=(libstdc++-12-dev) ;;
    trixie) libraries+=(libstdc++-14-dev libhwy-dev) ;;
    *) die "the arm64 root is made of packages of Debian 12 or 13" "run ./dev arm there" ;;
  esac
  local arm_root_is="2 $suite ${libraries[*]}"  # the number: how it is unpacked
  [ "$(cat -- "$arm_root/packages" 2> /dev/null)" != "$arm_root_is" ] || return 0
  say "fetching arm64 packages (25 MB)"
  (
    open_private_apt "$suite" arm64
    private_apt install --yes --no-install-recommends --download-only "${libraries[@]}"
    for package in cache/archives/*.deb; do dpkg-deb -x "$package" "$work/root"; done
    [ -e "$work/root/lib" ] || ln -s usr/lib "$work/root/lib"
    # Links from the top (libm.so) would be looked up outside: the linker would take libm.a instead.
    find "$work/root" -type l -lname '/*' | while IFS= read -r link; do
      ln -sfn -- "$(realpath -m -s --relative-to="$(dirname -- "$link")" "$work/root$(readlink -- "$link")")" "$link"
    done
    echo "$arm_root_is" > "$work/root/packages"
    put_in_place "$work/root" "$arm_root"
  )
}

[ $# -gt 0 ] || set -- build
packages=()
for group in "$@"; do
  case "$group" in
    build | test | gcc | dev | arm)
      declare -n group_packages="${group}_packages"
      packages+=("${group_packages[@]}")
      ;;
    *) die "unknown group '$group'" "one of: build test gcc dev arm" ;;
  esac
done
install_missing "${packages[@]}"
install_cargo
install_highway
case " $* " in *" arm "*) with_lock deps unpack_arm_root ;; esac
