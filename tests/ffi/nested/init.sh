#!/bin/busybox sh
# First process of the nested guest: loads KVM, runs the tests named on the kernel's command line as tests=a,b, powers off.
/bin/busybox --install -s /bin
export PATH=/bin HOME=/tmp DENO_DIR=/deno NO_COLOR=1 DENO_NO_UPDATE_CHECK=1
export SYNDBG_NESTED=1 SYNDBG_REQUIRE_KVM=1
mkdir -p /proc /sys /dev /tmp
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mount -t tmpfs tmp /tmp
ifconfig lo 127.0.0.1 up
for module in irqbypass kvm kvm-amd; do
  insmod "/modules/$module.ko" || echo "nested: cannot load $module"
done
tests=$(sed -n 's/.*tests=\([^ ]*\).*/\1/p' /proc/cmdline | tr ',' ' ')
cd /repo
# shellcheck disable=SC2086
deno test -A --no-check --no-remote --reporter=tap $tests 2>&1
echo "nested: exit $?"
poweroff -f
