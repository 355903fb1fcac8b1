#!/bin/sh
# Run a program to which a folder is /opt/ml, as in a container: mount.sh FOLDER PROGRAM ARGUMENT ...
#
# The mount is in a namespace of the program's own, so nobody else sees it, and it is gone with the program. root may
# have one; on most machines every user may, in a user namespace. Each step replaces this process by the next, so the
# program keeps its number, and signals and records reach it as ever. A program of a user namespace gets none of the
# rights that the mount took.
set -e
# The program's own may lack what is called here.
given=$PATH PATH=/usr/sbin:/usr/bin:/sbin:/bin:$PATH
case $1 in
--mount)
    folder=$2 within=${3#"$2"} rights=$4 given=$5
    shift 5
    if [ ! -d /opt/ml ]; then
        # A copy of /opt that only this namespace has: all that is in it, and one folder more.
        opt=$(mktemp -d)
        mount --rbind /opt "$opt"
        mount -t tmpfs -o mode=755 tmpfs /opt
        for entry in "$opt"/* "$opt"/.[!.]*; do
            target=/opt/${entry##*/}
            if [ -L "$entry" ]; then
                ln -s "$(readlink "$entry")" "$target"
            elif [ -d "$entry" ]; then
                mkdir "$target" && mount --rbind "$entry" "$target"
            elif [ -e "$entry" ]; then
                : >"$target" && mount --bind "$entry" "$target"
            fi
        done
        umount -l "$opt"
        rmdir "$opt"
        mkdir /opt/ml
    fi
    mount --rbind "$folder" /opt/ml
    cd "/opt/ml$within"
    setpriv=$(command -v setpriv || :)
    PATH=$given
    [ "$rights" = keep ] || exec "$setpriv" --ambient-caps -all --inh-caps -all "$@"
    exec "$@"
    ;;
*)
    folder=$(readlink -f "$1") here=$(pwd -P)
    shift
    user="--user --map-current-user --keep-caps" rights=drop
    if unshare --mount true 2>/dev/null; then
        user="" rights=keep
    fi
    # shellcheck disable=SC2086 # options, or none
    exec unshare $user --mount --propagation private "$0" --mount "$folder" "$here" $rights "$given" "$@"
    ;;
esac
