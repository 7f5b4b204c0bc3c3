#!/usr/bin/env bash
# Make the two images that compose/Dockerfile builds on, for machines that reach no registry: compose/base-image.sh [BASE [TOOLCHAIN]]
#
# BASE (qed-base:trixie) is Debian with Python, and what the server runs on. TOOLCHAIN (qed-toolchain:trixie) is BASE with the certificate
# authorities that this machine trusts beyond Debian's, such as an intercepting proxy's; nothing of it but /opt/qed reaches the server's image.
# Needs root and debootstrap. Kept in ~/.cache/qed, so that only the first run takes a minute.
set -euo pipefail

readonly release=trixie
readonly base=${1:-qed-base:$release}
readonly toolchain=${2:-qed-toolchain:$release}
readonly mirror=${MIRROR:-http://deb.debian.org/debian}
readonly keyring=${KEYRING:-/usr/share/keyrings/debian-archive-keyring.gpg}
readonly authorities=/usr/local/share/ca-certificates
readonly cache=${XDG_CACHE_HOME:-$HOME/.cache}/qed
# Archives of older versions of this script are not used: they hold this machine's authorities.
readonly archive=$cache/base-2-$release-$(dpkg --print-architecture).tar.gz

scratch=$(mktemp --directory)
readonly scratch
trap 'rm -rf "$scratch"' EXIT

make_archive() {
    local root=$scratch/root
    # Without the option and the keyring, debootstrap installs what any mirror gives it.
    test -s "$keyring" || { echo "expected Debian's keys in $keyring: install debian-archive-keyring" >&2; exit 1; }
    debootstrap --force-check-gpg --keyring="$keyring" --variant=minbase --include=ca-certificates,python3-venv \
        "$release" "$root" "$mirror" >&2
    # Documentation is not needed in a container.
    rm -rf "$root"/usr/share/{doc,man,locale,info}/* "$root"/var/lib/apt/lists/* "$root"/var/cache/apt/* "$root"/var/log/*
    find "$root/dev" -mindepth 1 -delete
    mkdir -p "$cache"
    # Under another name until it is complete.
    tar --create --gzip --numeric-owner --directory "$root" --file "$archive.part" .
    mv "$archive.part" "$archive"
}

[ -f "$archive" ] || make_archive
docker import --change 'CMD ["bash"]' "$archive" "$base"

mkdir "$scratch/context" "$scratch/context/authorities"
find "$authorities" -name '*.crt' -exec cp --target-directory "$scratch/context/authorities" {} + 2>/dev/null || true
printf 'FROM %s\nCOPY authorities/ %s/\nRUN update-ca-certificates\n' "$base" "$authorities" >"$scratch/context/Dockerfile"
docker build --quiet --tag "$toolchain" "$scratch/context"
