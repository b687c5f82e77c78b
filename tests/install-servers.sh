#!/usr/bin/env bash
# Installs the real servers that some tests start (Prometheus with promtool). Only where it is allowed to:
# elsewhere those tests skip with a reason.
set -euo pipefail
if command -v prometheus >/dev/null && command -v promtool >/dev/null; then
    exit 0
fi
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo "prometheus is not installed and cannot be installed from here: its tests will skip"
    exit 0
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
apt-get install -y -qq --no-install-recommends prometheus >/dev/null
