#!/usr/bin/env bash
# Installs the real servers that some tests start, and a browser: Prometheus, Alertmanager, jq, debootstrap, PostgreSQL,
# an OCI registry and Chromium from the system's packages, MLflow and an S3 server into .venv-servers. What cannot be
# installed here is named, and its tests skip with a reason.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
venv=$here/../.venv-servers
wanted=$here/servers-requirements.txt

packages=()
for program in prometheus prometheus-alertmanager jq docker-registry debootstrap; do
    command -v "$program" >/dev/null || packages+=("$program")
done
compgen -G "/usr/lib/postgresql/*/bin/postgres" >/dev/null || packages+=(postgresql)
# Whichever of them is there will do; fonts, so that a page has the same widths everywhere.
command -v chromium >/dev/null || command -v google-chrome >/dev/null || packages+=(chromium fonts-dejavu-core)
if [ ${#packages[@]} -gt 0 ]; then
    if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
        echo "${packages[*]}: not installed, and cannot be installed from here: their tests will skip"
    else
        export DEBIAN_FRONTEND=noninteractive
        # The package starts a registry on port 5000 and none is wanted: tests start their own.
        policy=/usr/sbin/policy-rc.d
        mine=
        if [ ! -e "$policy" ]; then
            printf '#!/bin/sh\nexit 101\n' >"$policy"
            chmod +x "$policy"
            mine=$policy
        fi
        apt-get update -qq || true
        for package in "${packages[@]}"; do
            apt-get install -y -qq --no-install-recommends "$package" >/dev/null ||
                echo "$package: could not be installed: its tests will skip"
        done
        if [ -n "$mine" ]; then rm -f "$mine"; fi
    fi
fi

if [ -n "${TEST_SERVERS_BIN:-}" ] && [ -x "$TEST_SERVERS_BIN/mlflow" ]; then
    exit 0
fi
if cmp -s "$wanted" "$venv/.installed"; then
    exit 0
fi
rm -rf "$venv"
if "${PYTHON:-python3}" -m venv "$venv" &&
    # Every version is pinned, so that nothing has to be worked out.
    "$venv/bin/pip" install --quiet --disable-pip-version-check --no-deps --requirement "$wanted"; then
    cp "$wanted" "$venv/.installed"
else
    rm -rf "$venv"
    echo "MLflow and moto could not be installed: their tests will skip"
fi
