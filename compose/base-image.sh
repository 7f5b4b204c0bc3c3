#!/usr/bin/env bash
# Make a base image from Debian's packages, for machines that reach no registry: compose/base-image.sh [TAG]
#
# The image is `qed-base:trixie` unless TAG is given; it serves as BASE and, with a wheel from the host, as TOOLCHAIN of
# compose/Dockerfile. It is kept in ~/.cache/qed, so that only the first run takes a minute. Needs root and debootstrap.
set -euo pipefail

readonly release=trixie
readonly tag=${1:-qed-base:$release}
readonly mirror=${MIRROR:-http://deb.debian.org/debian}
readonly cache=${XDG_CACHE_HOME:-$HOME/.cache}/qed
readonly archive=$cache/base-$release-$(dpkg --print-architecture).tar.gz

make_archive() {
    local root
    root=$(mktemp --directory)
    # `root` is no longer set when the script exits, so it is expanded now.
    # shellcheck disable=SC2064
    trap "rm -rf '$root'" EXIT
    debootstrap --variant=minbase --include=ca-certificates,python3-venv "$release" "$root" "$mirror" >&2
    # An intercepting proxy may sign connections to the registries with its own authority.
    find /usr/local/share/ca-certificates -name '*.crt' -exec cp --target-directory "$root/usr/local/share/ca-certificates" {} + || true
    chroot "$root" update-ca-certificates >/dev/null
    # Documentation is not needed in a container.
    rm -rf "$root"/usr/share/{doc,man,locale,info}/* "$root"/var/lib/apt/lists/* "$root"/var/cache/apt/* "$root"/var/log/*
    find "$root/dev" -mindepth 1 -delete
    mkdir -p "$cache"
    # Under another name until it is complete.
    tar --create --gzip --numeric-owner --directory "$root" --file "$archive.part" .
    mv "$archive.part" "$archive"
}

[ -f "$archive" ] || make_archive
docker import --change 'CMD ["bash"]' "$archive" "$tag"
