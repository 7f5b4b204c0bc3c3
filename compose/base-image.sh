#!/usr/bin/env bash
# Make a base image from Debian's packages, for where no registry can be reached: compose/base-image.sh [TAG]
#
# The image is `qed-base:trixie` unless TAG is given; it serves as BASE and as TOOLCHAIN of compose/Dockerfile, the latter with a wheel
# from the host. It is kept in ~/.cache/qed, so that only the first run takes a minute. Needs root and debootstrap.
set -euo pipefail

readonly release=trixie
readonly tag=${1:-qed-base:$release}
readonly mirror=${MIRROR:-http://deb.debian.org/debian}
readonly cache=${XDG_CACHE_HOME:-$HOME/.cache}/qed
readonly archive=$cache/base-$release-$(dpkg --print-architecture).tar.gz

make_archive() {
    local root
    root=$(mktemp --directory)
    # `root` is gone when the script ends, so it is spelt out here.
    # shellcheck disable=SC2064
    trap "rm -rf '$root'" EXIT
    debootstrap --variant=minbase --include=ca-certificates,python3-venv "$release" "$root" "$mirror" >&2
    # A proxy between here and the registries may sign what it passes on.
    find /usr/local/share/ca-certificates -name '*.crt' -exec cp --target-directory "$root/usr/local/share/ca-certificates" {} + || true
    chroot "$root" update-ca-certificates >/dev/null
    # Nobody reads in a container.
    rm -rf "$root"/usr/share/{doc,man,locale,info}/* "$root"/var/lib/apt/lists/* "$root"/var/cache/apt/* "$root"/var/log/*
    find "$root/dev" -mindepth 1 -delete
    mkdir -p "$cache"
    # Under another name until it is whole.
    tar --create --gzip --numeric-owner --directory "$root" --file "$archive.part" .
    mv "$archive.part" "$archive"
}

[ -f "$archive" ] || make_archive
docker import --change 'CMD ["bash"]' "$archive" "$tag"
