#!/bin/sh
# Unpack Debian's or Ubuntu's Prometheus, with promtool, into a folder of ours: as any user, and without touching the
# system's own packages or lists. No index of Python packages has it.
set -eu
folder=$1
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
mkdir -p "$scratch/state/lists/partial" "$scratch/cache/archives/partial"
cd "$scratch"
apt() {
    apt-get -qq -o "Dir::State=$scratch/state" -o "Dir::Cache=$scratch/cache" -o Dir::State::status=/var/lib/dpkg/status \
        -o "APT::Sandbox::User=$(id -un)" -o APT::Update::Post-Invoke::= -o APT::Update::Post-Invoke-Success::= "$@"
}
apt update
apt download prometheus
dpkg-deb -x prometheus_*.deb "$folder"
"$folder/usr/bin/promtool" --version > /dev/null
