#!/bin/sh
# Make .venv with the pinned packages: tools/setup.sh [EXTRAS], where EXTRAS is empty (core only) or a list like `all`
# or `dmc,tune`. Called again with nothing changed it does nothing. `make demo` and `make test` call it.
# tools/setup.sh --find-python only prints which interpreter it would take.
#
# In order: find a Python 3.12 that really runs; make .venv; install constraints.txt's versions, with uv where it can be
# had and with pip otherwise, both from the index pip is configured for on this machine; see that an off-screen OpenGL
# loads, which videos and pixel observations need.
set -eu
cd "$(dirname "$0")/.."
extras=${1:-}
venv=.venv
stamp=$venv/robotrl-setup # first line: hash of what was asked; second: the extras that are in
gl_packages="libegl1 libgl1 libosmesa6"

say() { printf '%s\n' "$*" >&2; }
die() {
    say "setup: $*"
    exit 1
}

# Exit status 0 if "$@" is a Python this project's pins are made for and that can make a virtual environment.
is_usable_python() {
    "$@" -c 'import sys, ensurepip, venv; sys.exit(sys.version_info[:2] != (3, 12))' >/dev/null 2>&1
}

# A name on PATH proves little: pyenv's shim `python3.12` exists and fails where another version is selected, and
# `python3` may be of any age. So every candidate is run.
find_python() {
    if [ -n "${ROBOTRL_PYTHON:-}" ]; then
        is_usable_python "$ROBOTRL_PYTHON" && echo "$ROBOTRL_PYTHON"
        return
    fi
    for candidate in python3.12 python3 python \
        "${PYENV_ROOT:-/nonexistent}"/versions/3.12*/bin/python3.12 \
        "${HOME:-/nonexistent}"/.pyenv/versions/3.12*/bin/python3.12 \
        /root/.pyenv/versions/3.12*/bin/python3.12 /opt/pyenv/versions/3.12*/bin/python3.12 \
        "${HOME:-/nonexistent}"/.local/share/uv/python/cpython-3.12*/bin/python3.12 \
        /usr/local/bin/python3.12 /usr/bin/python3.12 /opt/python/*/bin/python3.12; do
        if is_usable_python "$candidate"; then
            echo "$candidate"
            return 0
        fi
    done
    return 1
}

# Debian and Ubuntu ship venv apart from the interpreter, so a fresh machine may have one without the other.
apt_install() {
    [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1 || return 1
    say "setup: apt-get install $*"
    DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$@" >/dev/null 2>&1 && return 0
    apt-get update >/dev/null 2>&1 &&
        DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$@" >/dev/null 2>&1
}

no_python() {
    [ -z "${ROBOTRL_PYTHON:-}" ] || die "ROBOTRL_PYTHON=$ROBOTRL_PYTHON is not a working Python 3.12 with venv."
    die "no working Python 3.12 was found; the pinned packages are made for that version.
Tried: python3.12, python3, python, every 3.12 under \$PYENV_ROOT, ~/.pyenv, /root/.pyenv and /opt/pyenv, and uv.
Install one, for instance
    apt-get install python3.12 python3.12-venv      (Ubuntu 24.04)
    pyenv install 3.12                              (any system)
    uv python install 3.12                          (any system)
or name one: ROBOTRL_PYTHON=/path/to/python3.12 make demo"
}

make_venv() {
    is_usable_python $venv/bin/python && return 0
    rm -rf $venv
    python=$(find_python) || {
        [ -n "${ROBOTRL_PYTHON:-}" ] || apt_install python3.12 python3.12-venv || true
        python=$(find_python) || true
    }
    if [ -n "$python" ]; then
        say "setup: $venv with $("$python" --version) ($(command -v "$python"))"
        "$python" -m venv $venv
    elif [ -z "${ROBOTRL_PYTHON:-}" ] && command -v uv >/dev/null 2>&1 && uv venv -q --seed --python 3.12 $venv; then
        say "setup: $venv with the Python 3.12 that uv brings"
    else
        no_python
    fi
}

# uv does not read pip's configuration. Hand it over, so that a machine with a mirror or a proxy works as it does for pip.
pip_setting() {
    for section in global install :env:; do
        value=$($venv/bin/python -m pip config get "$section.$1" 2>/dev/null) && break
    done
    printf '%s' "${value:-}" | tr '\n' ' '
}

export_pip_settings_for_uv() {
    value=$(pip_setting index-url)
    [ -z "$value" ] || export UV_DEFAULT_INDEX="${UV_DEFAULT_INDEX:-$value}"
    value=$(pip_setting extra-index-url)
    if [ -n "$value" ] && [ -z "${UV_INDEX:-}" ]; then
        export UV_INDEX="$value" UV_INDEX_STRATEGY="${UV_INDEX_STRATEGY:-unsafe-best-match}" # pip's own rule: any index
    fi
    value=$(pip_setting find-links)
    [ -z "$value" ] || export UV_FIND_LINKS="${UV_FIND_LINKS:-$(printf '%s' "$value" | tr ' ' ',')}"
    value=$(pip_setting trusted-host)
    [ -z "$value" ] || export UV_INSECURE_HOST="${UV_INSECURE_HOST:-$value}"
    value=$(pip_setting cert)
    [ -z "$value" ] || export SSL_CERT_FILE="${SSL_CERT_FILE:-$value}"
    [ -w "${HOME:-/nonexistent}" ] || export UV_NO_CACHE=1
    export UV_LINK_MODE="${UV_LINK_MODE:-hardlink}" UV_BUILD_CONSTRAINT=constraints.txt UV_NO_PROGRESS=1
}

install_packages() {
    target=".${extras:+[$extras]}"
    $venv/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt uv ||
        say "setup: uv could not be installed; using pip, which takes longer"
    if [ -x $venv/bin/uv ]; then
        export_pip_settings_for_uv
        $venv/bin/uv pip install --quiet --python $venv/bin/python -c constraints.txt -e "$target" && return 0
        say "setup: uv did not succeed; trying pip"
    fi
    PIP_CONSTRAINT=constraints.txt $venv/bin/python -m pip install --disable-pip-version-check -c constraints.txt -e "$target" ||
        die "the packages could not be installed (see above). The network and pip's index are the usual reasons; run it again, it continues."
}

gl_works() {
    $venv/bin/python -c 'import sys; from robotrl.envs.rendering import has_gl; sys.exit(not has_gl())'
}

check_gl() {
    gl_works && return 0
    for package in $gl_packages; do # one by one: newer releases no longer have libosmesa6
        apt_install "$package" || true
    done
    gl_works && return 0
    say "setup: no off-screen OpenGL (EGL or OSMesa) loads: training works, videos and pixel observations do not.
On Debian or Ubuntu:  apt-get install $gl_packages"
}

if [ "$extras" = --find-python ]; then
    find_python || no_python
    exit 0
fi
wanted=$(cat pyproject.toml constraints.txt tools/setup.sh | cksum)
installed=$(sed -n 2p $stamp 2>/dev/null || true)
if [ "$(sed -n 1p $stamp 2>/dev/null || true)" = "$wanted" ] && is_usable_python $venv/bin/python; then
    case " $installed " in *" ${extras:-core} "* | *" all "*) exit 0 ;; esac
else
    installed=
fi
make_venv
say "setup: installing ${extras:-the core} into $venv (the first time this takes one to five minutes)"
install_packages
check_gl
printf '%s\n%s\n' "$wanted" "core $installed $extras" >$stamp
say "setup: ready"
