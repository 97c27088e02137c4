#!/usr/bin/env bash
# Set a machine up to build, run and test tgw. Installs what is missing when it may, says what it did,
# says in one line what it could not, and goes on. Does nothing when nothing changed since the last run.
#   tools/setup.sh [--lint] [--bench] [--seen] [--test]    also the tools that `make lint` needs, whom `make bench` compares
#       with, what draws the dashboards (Node, Chromium, Grafana's packages), or whom tests talk to (Alertmanager)
set -u
cd "$(dirname "$0")/.." || exit 1
want_lint=no
want_bench=no
want_seen=no
want_test=no
for word in "$@"; do
  case "$word" in
    --lint) want_lint=yes ;;
    --bench) want_bench=yes ;;
    --seen) want_seen=yes ;;
    --test) want_test=yes ;;
    *) echo "setup: unknown word $word (expected --lint, --bench, --seen or --test)" >&2; exit 2 ;;
  esac
done
say() { printf 'setup: %s\n' "$*"; }

RUST_MIN=1.88
at_least() { [ "$(printf '%s\n%s\n' "$2" "$1" | sort -V | head -n 1)" = "$2" ]; }
rust_ok() {
  command -v cargo >/dev/null 2>&1 && command -v rustc >/dev/null 2>&1 &&
    at_least "$(rustc --version 2>/dev/null | awk '{print $2}')" "$RUST_MIN"
}
venv_ok() { python3 -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; }

# --- what the machine lacks, as Debian packages
packages=()
command -v cc >/dev/null 2>&1 || packages+=(gcc libc6-dev)
[ -e /etc/ssl/certs/ca-certificates.crt ] || [ -n "${SSL_CERT_FILE:-}" ] || packages+=(ca-certificates) # cargo fetches by https
command -v git >/dev/null 2>&1 || packages+=(git) # the demo's report names the commit
venv_ok || packages+=(python3 python3-venv)
rust_ok || packages+=(rustc-web cargo-web)
has() { command -v "$1" >/dev/null 2>&1 || [ -x "/usr/sbin/$1" ] || [ -x "/sbin/$1" ]; }
has bird || packages+=(bird2)
has ip || packages+=(iproute2)
has ethtool || packages+=(ethtool)
has sysctl || packages+=(procps)
if [ "$want_lint" = yes ]; then
  cargo clippy --version >/dev/null 2>&1 || packages+=(rust-web-clippy)
  cargo fmt --version >/dev/null 2>&1 || packages+=(rustfmt-web)
  has shellcheck || packages+=(shellcheck)
fi
if [ "$want_bench" = yes ]; then
  has nft || packages+=(nftables)
  has haproxy || packages+=(haproxy)
fi
if [ "$want_seen" = yes ]; then
  has node || packages+=(nodejs)
  has npm || packages+=(npm)
  has chromium || has chromium-browser || packages+=(chromium)
fi

if [ "$want_test" = yes ]; then
  has prometheus-alertmanager || has alertmanager || packages+=(prometheus-alertmanager)
fi

if [ "${#packages[@]}" -gt 0 ]; then
  if [ "$(id -u)" != 0 ]; then
    say "not root, so not installed: ${packages[*]} (as root: apt-get install ${packages[*]}); going on without"
  elif ! command -v apt-get >/dev/null 2>&1; then
    say "no apt-get here, so not installed: ${packages[*]}; install their like by hand; going on without"
  else
    say "installing ${packages[*]}"
    # A freshly installed routing daemon must not start on this machine: the lab runs its own, in namespaces.
    policy=/usr/sbin/policy-rc.d
    made_policy=no
    if [ ! -e "$policy" ]; then
      printf '#!/bin/sh\nexit 101\n' >"$policy" && chmod 755 "$policy" && made_policy=yes
    fi
    log=$(mktemp)
    apt-get update -qq >"$log" 2>&1 || { tail -n 3 "$log" >&2; say "apt-get update failed; going on with the lists that are there"; }
    known=() unknown=()
    for package in "${packages[@]}"; do
      if apt-cache show "$package" >/dev/null 2>&1; then known+=("$package"); else unknown+=("$package"); fi
    done
    [ "${#unknown[@]}" -eq 0 ] || say "this system's package lists do not have: ${unknown[*]}; going on without"
    if [ "${#known[@]}" -gt 0 ]; then
      if DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${known[@]}" >"$log" 2>&1; then
        say "installed ${known[*]}"
        # Nor is it to start with the machine: it would listen on every address.
        case " ${known[*]} " in
          *" prometheus-alertmanager "*) systemctl disable -q prometheus-alertmanager >/dev/null 2>&1 || rm -f /etc/systemd/system/multi-user.target.wants/prometheus-alertmanager.service ;;
        esac
      else
        tail -n 5 "$log" >&2
        say "apt-get could not install all of: ${known[*]}; going on with what is there"
      fi
    fi
    rm -f "$log"
    [ "$made_policy" = yes ] && rm -f "$policy"
  fi
fi

# --- Python
if ! venv_ok; then
  say "Python 3.11 or newer with venv is needed and is not here: install python3 and python3-venv" >&2
  exit 1
fi
if [ ! -x .venv/bin/python ]; then
  python3 -m venv .venv || exit 1
  say "made .venv with $(.venv/bin/python --version)"
fi
pins=$(sha256sum requirements/dev.txt | cut -d' ' -f1)
if [ "$(cat .venv/pins 2>/dev/null)" != "$pins" ]; then
  say "installing the pinned Python packages"
  .venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.txt || exit 1
  echo "$pins" >.venv/pins
fi

# --- the page that draws the dashboards
if [ "$want_seen" = yes ]; then
  why=$(.venv/bin/python -m tests.dashboards.seen.bundle 2>&1 >/dev/null) || say "dashboards cannot be drawn here: $why; going on without"
fi

# --- the native core
if ! rust_ok; then
  if .venv/bin/python -c 'import gateway._dataplane' >/dev/null 2>&1; then
    say "no Rust $RUST_MIN or newer here: keeping the native core that was built before"
  else
    say "Rust $RUST_MIN or newer is needed to build the native core, found $(rustc --version 2>/dev/null || echo none)" >&2
    exit 1
  fi
else
  source=$({ find gateway/dataplane -path '*/target' -prune -o \( -name '*.rs' -o -name 'Cargo.*' \) -type f -print0 |
    sort -z | xargs -0 sha256sum; sha256sum pyproject.toml; rustc --version; } | sha256sum | cut -d' ' -f1)
  if [ "$(cat .venv/native 2>/dev/null)" != "$source" ] ||
    ! .venv/bin/python -c 'import gateway._dataplane' >/dev/null 2>&1; then
    say "building the native core (release)"
    log=$(mktemp)
    .venv/bin/maturin develop --release >"$log" 2>&1 || { tail -n 30 "$log" >&2; rm -f "$log"; exit 1; }
    rm -f "$log"
    echo "$source" >.venv/native
  fi
fi
lacks=$(PATH="$PATH:/usr/sbin:/sbin" .venv/bin/python -m cli.main doctor --json 2>/dev/null |
  .venv/bin/python -c 'import json, sys; print(", ".join(f["what"] for f in json.load(sys.stdin) if not f["ok"]))' 2>/dev/null)
say "ready${lacks:+; not here: $lacks (.venv/bin/tgw doctor says more)}"
