#!/usr/bin/env bash
# Builds a substitute for the official Node image, under the same name, if no container registry is reachable:
# Debian from debootstrap, Node.js and npm from the npm registry. It includes the machine's certificates,
# because npm runs in it.
#   stand-in-base.sh docker.io/library/node:22.23.3-bookworm-slim
set -euo pipefail
image=$1
version=$(sed -E 's/.*:([0-9.]+)-.*/\1/' <<< "$image")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

debootstrap --variant=minbase --include=ca-certificates,libstdc++6 bookworm "$work/root" > "$work/log" || { tail "$work/log" >&2; exit 1; }
mkdir "$work/npm"
npm install --silent --no-save --prefix "$work/npm" "node@$version" npm@10
install -D "$(find "$work/npm/node_modules" -path '*/bin/node' -type f -size +1M | head -1)" "$work/root/usr/local/bin/node"
mkdir -p "$work/root/usr/local/lib/node_modules"
cp -r "$work/npm/node_modules/npm" "$work/root/usr/local/lib/node_modules/"
ln -s ../lib/node_modules/npm/bin/npm-cli.js "$work/root/usr/local/bin/npm"
cp "${NODE_EXTRA_CA_CERTS:-/etc/ssl/certs/ca-certificates.crt}" "$work/root/etc/ssl/certs/ca-certificates.crt"
cp /etc/apt/sources.list "$work/root/etc/apt/" 2> /dev/null || true
chroot "$work/root" useradd --uid 1000 --create-home node
rm -rf "$work/root/var/cache/apt/archives" "$work/root/var/lib/apt/lists"
tar -C "$work/root" -c . \
  | podman import --change ENV=NODE_EXTRA_CA_CERTS=/etc/ssl/certs/ca-certificates.crt --change 'ENV=PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin' - "$image"
