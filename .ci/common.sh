# Read by examples/run.sh, tests/run.sh and bench/run.sh, which set `source` to the top of the checkout.

umask 022

build_packages="g++ cmake ninja-build pkg-config capnproto libcapnp-dev libuv1-dev libboost-context1.81-dev
  libxxhash-dev liblz4-dev libcli11-dev nlohmann-json3-dev libssl-dev openssl"
bench_packages="make libboost-fiber1.81-dev libbenchmark-dev libmimalloc-dev iproute2"
# Whom pmake is measured against, and what the projects need that it is measured with.
rival_packages="icecc distcc dpkg-dev bison libevent-dev libncurses-dev libtool-bin tcl"
test_packages="clang libclang-rt-14-dev catch2 libsystemd-dev dbus-daemon $bench_packages"

missing_packages() {
  for package; do
    [ "$(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || printf '%s ' "$package"
  done
}

apt() {
  DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300 "$@" </dev/null
}

need_packages() {
  # need_packages NAME...: installs what is not there, or says how to and stops with status 2.
  command -v dpkg-query >/dev/null || return 0
  missing=$(missing_packages "$@")
  missing=${missing% }
  [ -n "$missing" ] || return 0
  listed=yes
  ls /var/lib/apt/lists/*_Packages* >/dev/null 2>&1 || listed=no
  if [ "$(id -u)" -ne 0 ]; then
    echo "Some packages are missing, and only root can install them. As root, run" >&2
    echo >&2
    [ $listed = yes ] || echo "    apt-get update" >&2
    echo "    apt-get install $missing" >&2
    echo >&2
    echo "stopped: install the packages above, then run this again" >&2
    exit 2
  fi
  echo "installing $missing"
  log=$(mktemp)
  if [ $listed = no ]; then
    apt update >"$log" 2>&1 || { cat "$log"; rm -f "$log"; stop "apt-get update failed"; }
  fi
  if ! apt install -y --no-install-recommends $missing >"$log" 2>&1; then
    # A list that is there may be old, and name versions that the archive no longer has.
    [ $listed = no ] || apt update >>"$log" 2>&1 || :
    apt install -y --no-install-recommends $missing >>"$log" 2>&1 ||
      { cat "$log"; rm -f "$log"; stop "apt-get install $missing failed"; }
  fi
  rm -f "$log"
}

stop() {
  echo "failed: $1"
  exit 1
}

build_root() {
  # Where to build: build/ in the checkout, or MIGRATE_BUILD_DIR. When root's tests also run as nobody and nobody
  # cannot reach the checkout, a folder of root's own that everyone can enter.
  if [ -n "${MIGRATE_BUILD_DIR:-}" ]; then
    echo "$MIGRATE_BUILD_DIR"
  elif [ "$(id -u)" -ne 0 ] || setpriv --reuid=nobody --regid=nogroup --clear-groups test -x "$source" 2>/dev/null; then
    echo "$source/build"
  else
    folder=/var/tmp/migrate-build-$(echo "$source" | cksum | cut -d ' ' -f 1)
    mkdir -m 755 "$folder" 2>/dev/null || :
    if [ ! -d "$folder" ] || [ -L "$folder" ] || [ ! -O "$folder" ]; then
      folder=$(mktemp -d /var/tmp/migrate-build-XXXXXX)
      chmod 755 "$folder"
    fi
    echo "$folder"
  fi
}

configure() {
  # configure FOLDER [CMAKE-OPTION...]: what CMake prints is shown only when it fails.
  folder=$1
  shift
  if command -v ccache >/dev/null; then
    set -- -DCMAKE_CXX_COMPILER_LAUNCHER=ccache "$@"
  fi
  mkdir -p "$folder"
  cmake -S "$source" -B "$folder" -G Ninja "$@" >"$folder/configure.log" 2>&1 ||
    { cat "$folder/configure.log"; return 1; }
}
