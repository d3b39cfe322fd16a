#!/usr/bin/env bash
# vim: et ts=2 syn=bash
#
# selinux-provision system extension: SELinux in enforcing mode, from one file.
#
# It takes the image that a release has, which is built and tested there. It has the program in /usr/bin and its units, and what has
# systemd start them when the image is merged. Nothing is in /usr/sbin.

# shellcheck disable=SC2034 # bakery.sh reads it
RELOAD_SERVICES_ON_MERGE="true"

function list_available_versions() {
  list_github_releases "selinux-provision" "selinux-provision"
}
# --

function populate_sysext_root() {
  local sysextroot="$1"
  local arch="$2"
  local version="$3"

  local rel_arch image
  rel_arch="$(arch_transform "x86-64" "amd64" "$arch")"
  image="selinux-provision-${version#v}-linux-${rel_arch}.sysext.raw"

  curl --parallel --fail --silent --show-error --location \
    --remote-name "https://github.com/selinux-provision/selinux-provision/releases/download/${version}/${image}" \
    --remote-name "https://github.com/selinux-provision/selinux-provision/releases/download/${version}/SHA512SUMS"

  grep -F "  ${image}" SHA512SUMS | sha512sum --strict --check -

  # The bakery writes the metadata itself, with the same content.
  unsquashfs -quiet -no-progress -dest image "${image}"
  cp -a image/usr "${sysextroot}/"
  chown -R "$(id -u):$(id -g)" "${sysextroot}/usr"
}
# --
