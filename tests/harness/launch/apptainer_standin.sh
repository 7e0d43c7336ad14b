#!/bin/bash
# Stands for Apptainer in tests: `exec` with the options that the harness gives. The machine's own files are the image, an overlay of
# them its root, and the .sif says which folder is its working directory. Needs root.
set -e
[ "$1" = exec ]; shift
binds=()
while [[ $1 == --* ]]; do
    case $1 in
        --pwd=*) place=${1#--pwd=} ;;
        --bind=*) binds+=("${1#--bind=}") ;;
        *) exit 9 ;;
    esac
    shift
done
[[ $1 == *.sif ]]; image=$1; shift
export image place BINDS="${binds[*]}"
for name in "${!APPTAINERENV_@}"; do export "${name#APPTAINERENV_}=${!name}"; done
exec unshare --mount --propagation private bash -c '
    set -e
    work=$(mktemp -d); mount -t tmpfs none "$work"; mkdir "$work"/{upper,work,root}
    mount -t overlay overlay -o lowerdir=/,upperdir="$work/upper",workdir="$work/work" "$work/root"
    for each in proc dev sys; do mount --rbind "/$each" "$work/root/$each"; done
    mkdir -p "$work/root$place"; mount --bind "$(cat "$image")" "$work/root$place"
    for each in $BINDS; do
        IFS=: read -r source target read_only <<< "$each"
        if [ -d "$source" ]; then mkdir -p "$work/root$target"; else mkdir -p "$(dirname "$work/root$target")"; touch "$work/root$target"; fi
        mount --bind "$source" "$work/root$target"
        if [ -n "$read_only" ]; then mount -o remount,bind,ro "$work/root$target"; fi
    done
    exec chroot "$work/root" bash -c "cd \"\$0\" && exec \"\$@\"" "$place" "$@"
' apptainer "$@"
