#!/bin/sh
# The guest's first process: the host's root, read-only, under an overlay in memory; then the job.
export PATH=/bin
fail() { echo "init: $1 failed"; poweroff -f; }
mount -t proc proc /proc; mount -t sysfs sysfs /sys; mount -t devtmpfs dev /dev
while read -r module; do insmod "/modules/$module" || fail "insmod $module"; done < /modules/order
mount -t virtiofs -o ro host /host || fail 'mounting the host'
mount -t tmpfs -o size=75% memory /memory; mkdir /memory/upper /memory/work
mount -t overlay -o lowerdir=/host,upperdir=/memory/upper,workdir=/memory/work overlay /new ||
  fail 'the overlay'
cd /new || fail 'the new root'
mount -t proc proc proc; mount -t sysfs sysfs sys; mount -t devtmpfs dev dev
mkdir -p dev/pts; mount -t devpts devpts dev/pts
# Programs are given their input by these names: nft reads rules from /dev/stdin.
ln -s /proc/self/fd dev/fd
for stream in 0:stdin 1:stdout 2:stderr; do ln -s "/proc/self/fd/${stream%:*}" "dev/${stream#*:}"; done
# What runs on the host, and what its labs have made, is not the guest's.
for folder in dev/shm run etc/netns var/lib/overlay-lab; do
  mkdir -p $folder; mount -t tmpfs memory $folder
done
mkdir -m 755 run/netns
mount -t bpf bpf sys/fs/bpf
mount -t tracefs tracefs sys/kernel/tracing 2> /dev/null
mount -t cgroup2 cgroup sys/fs/cgroup 2> /dev/null
cp /job run/job
umount /proc /sys
exec switch_root /new /bin/sh /run/job
