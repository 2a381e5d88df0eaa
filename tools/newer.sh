#!/bin/sh
# usage: tools/newer.sh chroot                        make the folder, or say why it cannot be had
#        tools/newer.sh PYTHON BUILDS [ARGUMENTS...]  and run the suite in it
#
# Run the suite on the CPythons that are newer than this machine's: Debian's unstable release has
# them, with their debug builds. BUILDS: release, debug or all; ARGUMENTS go to pytest. PYTHON is
# the environment whose pip gets the wheels, so that nothing in the folder needs a network.
#
# The folder is made once. DEBIAN_MIRROR says from where; without it, this machine's own apt does.

set -eu
versions="3.14 3.15"
root=.envs/sid

# What is mounted is so for this script alone, and ends with it: `make clean`, which removes the
# folder, can never come through to what lies outside of it.
if [ "${NEWER_INSIDE-}" != yes ]; then
    why=
    [ "$(id -u)" = 0 ] || why="only root can use chroot"
    [ -n "$why" ] || command -v debootstrap >/dev/null || why="no debootstrap (Debian package)"
    [ -n "$why" ] || [ -e /usr/share/keyrings/debian-archive-keyring.gpg ] ||
        why="no keys of Debian (Debian package: debian-archive-keyring)"
    [ -n "$why" ] || unshare --mount true 2>/dev/null || why="nothing can be mounted here"
    if [ -n "$why" ]; then
        echo "$why" >&2
        exit 1
    fi
    NEWER_INSIDE=yes exec unshare --mount sh "$0" "$@"
fi

make_root() {
    [ ! -d $root ] || return 0
    mirror=${DEBIAN_MIRROR-$(apt-get indextargets --format '$(REPO_URI)' \
        'Created-By: Packages' 'Label: Debian' 2>/dev/null | head -n 1)}
    packages=gcc,libc6-dev,make
    for version in $versions; do
        packages=$packages,python$version-venv,python$version-dev,python$version-dbg
    done
    mkdir -p .envs
    rm -rf $root.new
    echo "Unpacking Debian's unstable release in $root" >&2
    # shellcheck disable=SC2086  # no mirror: debootstrap's own
    debootstrap --variant=minbase --include=$packages sid $root.new $mirror >$root.log 2>&1 || {
        echo "debootstrap failed: $(tail -n 1 $root.log)" >&2
        exit 1
    }
    mv $root.new $root
}

# The extra "test" and what builds the project, for each version.
get_wheels() {
    wanted=$(cksum pyproject.toml)
    [ "$(cat $root/wheels/for 2>/dev/null)" != "$wanted" ] || return 0
    rm -rf $root/wheels
    for version in $versions; do
        "$python" -c '
import tomllib
with open("pyproject.toml", "rb") as file:
    project = tomllib.load(file)
needs = project["build-system"]["requires"] + project["project"]["optional-dependencies"]["test"]
print(*needs, sep="\n")' |
            "$python" -m pip download -qq --disable-pip-version-check --dest $root/wheels \
                --only-binary :all: --python-version "$version" --implementation cp \
                --abi "cp$(echo "$version" | tr -d .)" --abi abi3 --abi none -r /dev/stdin
    done
    echo "$wanted" >$root/wheels/for
}

make_root
[ "$1" != chroot ] || exit 0
python=$1
shift
get_wheels

mkdir -p $root/src
mount --bind . $root/src
mount --rbind /dev $root/dev
mount -t proc proc $root/proc
mount -t tmpfs tmpfs $root/tmp
chroot $root env -i HOME=/root PATH=/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 \
    SLEEPLOOP_WERROR="${SLEEPLOOP_WERROR-}" PIP_NO_INDEX=1 PIP_FIND_LINKS=/wheels \
    sh -c 'cd /src && exec "$@"' sh "python${versions##* }" tools/pythons.py every "$@"
