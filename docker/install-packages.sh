#!/bin/sh
# While the image is built: installs Debian packages.  install-packages.sh PACKAGE...
# From the snapshot of Debian that the base image was made of, which Debian's images name in their debian.sources, so that
# the base's digest pins these packages too. A base that names no snapshot: from its own sources. A site's sources.list as
# the build secret apt_sources comes before both. Nothing of this is left in the image.
set -eu

scratch=$(mktemp -d)
trap 'rm -rf "$scratch" /var/lib/apt/lists/* /var/cache/apt/*.bin /var/cache/apt/archives/*.deb /var/log/apt /var/log/dpkg.log' EXIT
cat > "$scratch/apt.conf" << CONFIGURATION
Acquire::Retries "5";
APT::Install-Recommends "false";
CONFIGURATION

debian=/etc/apt/sources.list.d/debian.sources
if [ -f /run/secrets/apt_sources ]; then
    cp /run/secrets/apt_sources "$scratch/sources.list"
    echo "Dir::Etc::SourceList \"$scratch/sources.list\"; Dir::Etc::SourceParts \"/dev/null\";" >> "$scratch/apt.conf"
elif grep -q '^# http://snapshot\.debian\.org/' "$debian" 2> /dev/null; then
    mkdir "$scratch/parts"
    # The signatures of a snapshot hold, its expiry date is past: that is what makes it a snapshot
    sed '/^# http:\/\/snapshot/ { s/^# /URIs: /; s/$/\nCheck-Valid-Until: no/; n; /^URIs:/d }' "$debian" > "$scratch/parts/debian.sources"
    echo "Dir::Etc::SourceList \"/dev/null\"; Dir::Etc::SourceParts \"$scratch/parts\";" >> "$scratch/apt.conf"
fi
if [ -f /run/secrets/ca_bundle ]; then
    cp /run/secrets/ca_bundle "$scratch/ca.pem"
    echo "Acquire::https::CaInfo \"$scratch/ca.pem\";" >> "$scratch/apt.conf"
fi
chmod -R a+rX "$scratch" # apt fetches as a user of its own

export APT_CONFIG="$scratch/apt.conf" DEBIAN_FRONTEND=noninteractive
if ! { apt-get update --error-on=any && apt-get install -y "$@"; }; then
    echo "These packages could not be installed: $*. From a network without Debian's servers or its snapshots, give sources" >&2
    echo "of your own: docker build --secret id=apt_sources,src=sources.list -t ssd ." >&2
    exit 1
fi
