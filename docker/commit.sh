#!/bin/sh
# While the image is built: says, as JSON, which commit its code is and whether it differs.  commit.sh CONTEXT [COMMIT]
# COMMIT, the build argument GIT_COMMIT, is believed ("...-dirty" as git describe says it). Otherwise git is asked about the
# files of the build context, which are those of the image. No checkout: unknown, and that counts as different.
set -eu

ask() { git -c safe.directory='*' -C "$context" "$@"; }

context=$1 commit=${2:-} dirty=true
if [ -n "$commit" ]; then
    [ "${commit%-dirty}" = "$commit" ] && dirty=false
elif commit=$(ask rev-parse --verify HEAD 2> /dev/null); then
    cd "$context"
    set -- # the files and folders at the top of the context, .git not among them
    for name in *; do set -- "$@" ":(top)$name"; done
    if ask --no-optional-locks diff --quiet HEAD -- "$@" && [ -z "$(ask ls-files --others -- "$@")" ]; then dirty=false; fi
else
    commit=unknown
fi
printf '{"commit": "%s", "tree_dirty": %s}\n' "${commit%-dirty}" "$dirty"
