#!/bin/busybox sh
# First process of the guest: says what the kernel made of its machine, does the job, powers off.
/bin/busybox --install -s /bin
export PATH=/bin
mkdir -p /proc /sys /dev /tmp
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
echo "guest: up $(cut -d ' ' -f 1 /proc/uptime)"
dmesg | sed -n 's/.*\(Hypervisor detected: .*\)/guest: \1/p'
echo "guest: clocksource $(cat /sys/devices/system/clocksource/clocksource0/current_clocksource)"
case $(cat /proc/cmdline) in *then=crash*) echo c >/proc/sysrq-trigger ;; esac
for module in msr virtio_mmio virtio_blk; do
  insmod "/modules/$module.ko" || echo "guest: cannot load $module"
done
echo "guest: disk says $(head -c 5 /dev/vda)"
printf 'by the guest' | dd of=/dev/vda bs=512 seek=1 conv=notrunc,fsync 2>/dev/null ||
  echo "guest: cannot write its disk"
syndbg 2>&1 | sed 's/^/guest: syndbg /'
echo "guest: job begins"
sh /job.sh
echo "guest: job ends"
echo "guest: at $(cut -d ' ' -f 1 /proc/uptime) it powers off"
sed 's/^/guest: interrupts /' /proc/interrupts
poweroff -f
