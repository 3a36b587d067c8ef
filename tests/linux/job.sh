# Work whose results do not depend on where it is done.
set -e
work=$(busybox mktemp -d)
cd "$work"
busybox yes "$(busybox seq 1 500)" | busybox head -c 65536 >part
for _ in 1 2 3 4; do
  busybox cat part part part part >whole
  busybox mv whole part
done
busybox sha256sum part
busybox dd if=part of=start bs=65536 count=2 2>/dev/null
busybox gzip -c start | busybox tail -c +11 | busybox sha256sum
busybox gzip -c start | busybox gzip -dc | busybox sha256sum
cd /
busybox rm -r "$work"
busybox awk 'BEGIN {
  for (n = 1; n <= 2000; n++) {
    sum += 1 / (n * n)
    root = 1
    for (k = 0; k < 5; k++) root = (root + n / root) / 2
    roots += root
  }
  printf "%.17g %.17g\n", sum * 6, roots
}'
