# The first process of a host: makes the machine's view its own, says `ready`, then collects dead children until its input ends.
# It runs in new namespaces (net, mount, uts, ipc, pid, cgroup). $1: the host's directory, $2: its name, $3: its control group.
set -eu
dir=$1 name=$2 group=$3
hostname "$name"
mount -t tmpfs -o mode=755 heptad-host /run
for file in hosts hostname resolv.conf; do
    # It may be a link into /run, which is empty now.
    target=$(readlink -f "/etc/$file" || readlink -m "/etc/$file")
    mkdir -p "$(dirname "$target")"
    [ -e "$target" ] || : > "$target"
    mount --bind "$dir/etc/$file" "$target"
done
# Its control group is the root of each hierarchy.
mkdir /run/cgroup
mount -t tmpfs -o mode=755 heptad-host /run/cgroup
while read -r hierarchy; do
    mkdir -p "/run/cgroup/$hierarchy"
    mount --bind "/sys/fs/cgroup/$hierarchy/$group" "/run/cgroup/$hierarchy"
done < "$dir/etc/hierarchies"
umount -l /sys
mount -t sysfs sysfs /sys
if [ -e /run/cgroup/cgroup.procs ]; then
    mount --bind /run/cgroup /sys/fs/cgroup
else
    mount --rbind /run/cgroup /sys/fs/cgroup
fi
umount -l /run/cgroup
rmdir /run/cgroup
if [ -e "$dir/disk" ]; then
    mount -o loop "$dir/disk" "$dir/data"
    chmod 700 "$dir/data"
fi
ip link set lo up
echo ready
trap 'exit 0' TERM
exec 3<&0 < /dev/null
{ cat <&3 > /dev/null; kill -TERM 1; } &
while :; do
    sleep 3600 &
    wait $!
done
