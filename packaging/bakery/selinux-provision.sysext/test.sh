#!/usr/bin/env bash
# vim: et ts=2 syn=bash
#
# Test of the selinux-provision system extension, on a Flatcar machine into which it is merged. It is run as root, says each thing that it
# looks at, and ends with 0 if all are right. It switches the machine to enforcing and back, and takes back what it declares.

# shellcheck disable=SC2317 # functions that check and trap call
set -euo pipefail

failed=0
function check() {
  local what="$1"
  shift
  if "$@" >/tmp/selinux-provision-test.out 2>&1; then
    echo "ok      ${what}"
  else
    echo "FAILED  ${what}: $*"
    sed 's/^/        /' /tmp/selinux-provision-test.out
    failed=1
  fi
}
# --

# says runs a command and looks for a line that fits in what it prints.
function says() {
  local pattern="$1"
  shift
  { "$@" || true; } 2>&1 | tee /dev/stderr | grep -Eq "${pattern}"
}
# --

function cleanup() {
  setenforce 0 || true
  selinux-provision revert || true
  rm -f /etc/selinux-provision/config.d/99-test.yaml
}
# --

if [[ "$(id -u)" != 0 ]]; then
  echo "test.sh: run it as root" >&2
  exit 2
fi
trap cleanup EXIT

check "the image is merged" says "selinux-provision" systemd-sysext status
check "the program runs" selinux-provision version
check "/usr/sbin is still the link that Flatcar has" test -L /usr/sbin
for unit in policystore policy audit enforce; do
  check "the unit of stage ${unit} was started by the merge" test "$(systemctl show --property=Result --value "selinux-provision-stage-${unit}.service")" = success
done
check "the watcher runs" systemctl is-active selinux-provision-mountwatch.service
check "systemd has no failed unit of ours" bash -c '! systemctl --failed --plain --no-legend "selinux-provision*" | grep .'
check "the generator is there" test -x /usr/lib/systemd/system-generators/selinux-provision-generator

mkdir -p /etc/selinux-provision/config.d
cat >/etc/selinux-provision/config.d/99-test.yaml <<'EOF'
version: 1
mode: enforcing
policy:
  booleans: {container_use_nfs: true}
audit:
  log_denials: true
  dontaudit: strip
EOF
check "the configuration is right" selinux-provision check /etc/selinux-provision/config.d/99-test.yaml
check "what is declared is applied" selinux-provision apply
check "the kernel enforces" says '^Enforcing$' getenforce
check "the next boot enforces" grep -qx SELINUX=enforcing /etc/selinux/config
check "the boolean is on" says 'on$' getsebool container_use_nfs
check "the host is as declared" selinux-provision status
check "applying it again changes nothing" says 'policy: nothing to do' selinux-provision apply

if command -v docker >/dev/null && docker image ls -q | grep -q .; then
  image="$(docker image ls -q | head -1)"
  mkdir -p /var/tmp/selinux-provision-test
  check "a container is confined" says container_t docker run --rm --entrypoint cat "${image}" /proc/self/attr/current
  check "a container is kept from an unlabelled directory" says denied docker run --rm --entrypoint ls -v /var/tmp/selinux-provision-test:/v "${image}" /v
  check "a container may use a labelled one" docker run --rm --entrypoint ls -v /var/tmp/selinux-provision-test:/v:z "${image}" /v
  check "the denial is explained" says "$(basename /v)|container_t" selinux-provision denials --since 5m
  rm -rf /var/tmp/selinux-provision-test
fi

exit "${failed}"
