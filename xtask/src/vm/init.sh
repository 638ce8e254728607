#!/bin/sh
# The guest's first process. It mounts the host's root, read-only, under an overlay in memory, and starts the job. A
# failure ends the guest, because a test that finds nothing mounted would only skip itself.
export PATH=/bin
fail() { echo "init: $1 failed"; poweroff -f; }
# mounted TYPE WHERE [ARGUMENTS]
mounted() { type=$1 where=$2; shift 2; mount -t "$type" "$@" "$type" "$where" || fail "mounting $type on $where"; }
mounted proc /proc; mounted sysfs /sys; mounted devtmpfs /dev
while read -r module; do insmod "/modules/$module" || fail "insmod $module"; done < /modules/order
mount -t virtiofs -o ro host /host || fail 'mounting the host'
mounted tmpfs /memory -o size=75%; mkdir /memory/upper /memory/work
mounted overlay /new -o lowerdir=/host,upperdir=/memory/upper,workdir=/memory/work
cd /new || fail 'the new root'
mounted proc proc; mounted sysfs sys; mounted devtmpfs dev
mkdir -p dev/pts; mounted devpts dev/pts
# Programs read their input by these names, for example nft its rules from /dev/stdin.
ln -s /proc/self/fd dev/fd
for stream in 0:stdin 1:stdout 2:stderr; do ln -s "/proc/self/fd/${stream%:*}" "dev/${stream#*:}"; done
# The guest must not see the host's running programs and labs.
for folder in dev/shm run etc/netns var/lib/overlay-lab; do mkdir -p $folder; mounted tmpfs $folder; done
mkdir -m 755 run/netns
mounted bpf sys/fs/bpf; mounted tracefs sys/kernel/tracing; mounted cgroup2 sys/fs/cgroup
cp /job run/job
umount /proc /sys
exec switch_root /new /bin/sh /run/job
