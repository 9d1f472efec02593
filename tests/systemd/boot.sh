#!/bin/sh
# Boots a real systemd in namespaces, on a copy of this root that ends with it, for as long as standard input is open.
#
#   boot.sh keep [split]   called by the tests: prints "init PID CGROUP" (as seen from here), waits for the end of its input,
#                          then kills that init with all its processes and removes its cgroups
#   boot.sh enter [split]  called by "keep" in the new namespaces: becomes systemd
#
# "split": with a cgroup hierarchy for each controller (v1) beside the unified one. A host that has given its controllers to
# those has none left for the unified one, and without a controller there is no limit to test.
#
# Nothing of the host is written: root is an overlay whose upper half is in memory, /tmp, /run and /dev are new, /sys and
# /proc/sys cannot be written. Without that systemd would clean the host's /tmp and /run at its start.
set -eu

fail() {
    echo "boot.sh: $*" >&2
    exit 1
}

keep() {
    [ "$(id -u)" = 0 ] || fail "needs root"
    [ -x /lib/systemd/systemd ] || fail "systemd is not installed"
    hierarchy=$(awk '$3 == "cgroup2" { print $2; exit }' /proc/self/mounts)
    [ -n "$hierarchy" ] || fail "no cgroup v2 is mounted"
    name=portok-test-$$
    cgroup=$hierarchy/$name
    cgroups=$cgroup
    # In all of them a folder of its own, so that nothing is done to the host's.
    [ "$1" != split ] || cgroups="$cgroup $(awk -v name="$name" '$3 == "cgroup" { print $2 "/" name }' /proc/self/mounts)"
    for folder in $cgroups; do
        mkdir "$folder" || fail "may not make a cgroup"
    done
    # Whoever calls may be killed at any moment: what ends this script is the end of its input alone.
    trap '' INT TERM HUP
    sh -c 'for folder in $1; do echo $$ >"$folder/cgroup.procs"; done
        exec unshare --fork --kill-child --pid --mount --uts --ipc --cgroup --net --mount-proc sh "$2" enter "$3"' \
        sh "$cgroups" "$0" "$1" </dev/null &
    unshare=$!
    init=
    while kill -0 "$unshare" 2>/dev/null; do
        # Only once it has become systemd, which is the last step, its process is what the tests are told of.
        init=$(cat "/proc/$unshare/task/$unshare/children" 2>/dev/null || true)
        init=${init% }
        [ -n "$init" ] && [ "$(cat "/proc/$init/comm" 2>/dev/null)" = systemd ] && break
        sleep 0.02
    done
    if [ -n "$init" ] && [ -d "/proc/$init" ]; then
        echo "init $init $cgroup"
        cat >/dev/null
        kill -KILL "$init" 2>/dev/null || true
    fi
    wait "$unshare" || true
    # Below the deepest first; a process that is about to end may hold one for a moment.
    for folder in $cgroups; do
        tries=0
        while [ -d "$folder" ] && [ "$tries" -lt 500 ]; do
            find "$folder" -depth -type d -exec rmdir {} + 2>/dev/null || sleep 0.02
            tries=$((tries + 1))
        done
        [ ! -d "$folder" ] || fail "$folder is left"
    done
}

enter() {
    mount --make-rprivate /
    base=/mnt
    root=$base/root
    mount -t tmpfs -o mode=755 tmpfs $base
    mkdir $base/upper $base/work $root
    mount -t overlay overlay -o lowerdir=/,upperdir=$base/upper,workdir=$base/work $root
    mount -t proc -o nosuid,nodev,noexec proc $root/proc
    mount --bind $root/proc/sys $root/proc/sys
    mount -o remount,bind,ro $root/proc/sys
    mount -t sysfs -o ro,nosuid,nodev,noexec sysfs $root/sys
    if [ "$1" = split ]; then
        split_cgroups $root/sys/fs/cgroup
    else
        mount -t cgroup2 -o nosuid,nodev,noexec cgroup2 $root/sys/fs/cgroup
    fi
    mount -t tmpfs -o mode=755,nosuid tmpfs $root/dev
    for node in null zero full random urandom tty; do
        : >$root/dev/$node
        mount --bind /dev/$node $root/dev/$node
    done
    mkdir $root/dev/pts $root/dev/shm
    mount -t devpts -o newinstance,ptmxmode=0666,mode=620,gid=5 devpts $root/dev/pts
    ln -s pts/ptmx $root/dev/ptmx
    ln -s /proc/self/fd $root/dev/fd
    mount -t tmpfs -o mode=1777 tmpfs $root/dev/shm
    mount -t tmpfs -o mode=755 tmpfs $root/run
    mount -t tmpfs -o mode=1777 tmpfs $root/tmp

    # Only the journal and what systemd itself needs: no service of the host starts here, and nothing that tunes a kernel
    # which is the host's too.
    units=$root/etc/systemd/system
    rm -rf "$units"
    mkdir -p "$units"
    printf '[Unit]\nRequires=sysinit.target systemd-journald.service\nAfter=sysinit.target\n' >"$units/portok-test.target"
    for unit in systemd-udevd.service systemd-udev-trigger.service systemd-sysctl.service systemd-modules-load.service \
        systemd-binfmt.service systemd-random-seed.service systemd-remount-fs.service systemd-timesyncd.service \
        systemd-firstboot.service systemd-pstore.service systemd-hwdb-update.service systemd-networkd.service \
        systemd-resolved.service systemd-logind.service dbus.service dbus.socket timers.target paths.target systemd-journald-audit.socket \
        systemd-networkd-wait-online.service ifupdown-wait-online.service networking.service dev-hugepages.mount \
        dev-mqueue.mount sys-kernel-debug.mount sys-kernel-tracing.mount sys-fs-fuse-connections.mount \
        sys-kernel-config.mount proc-sys-fs-binfmt_misc.automount; do
        ln -s /dev/null "$units/$unit"
    done
    : >$root/etc/fstab
    mkdir -p $root/etc/systemd/journald.conf.d
    printf '[Journal]\nStorage=volatile\nRateLimitIntervalSec=0\nForwardToConsole=no\n' \
        >$root/etc/systemd/journald.conf.d/portok-test.conf
    echo portok-test >$root/etc/hostname
    hostname portok-test
    ip link set lo up 2>/dev/null || ifconfig lo up

    cd $root
    mkdir -p .old
    pivot_root . .old
    exec env -i container=portok-test PATH=/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 \
        chroot . sh -c 'umount -l /.old && rmdir /.old && exec /lib/systemd/systemd --system --unit=portok-test.target' \
        </dev/null >/dev/null 2>&1
}

# The host's v1 hierarchies, and the unified one as systemd expects it beside them.
split_cgroups() {
    mount -t tmpfs -o mode=755 tmpfs "$1"
    mkdir "$1/unified"
    mount -t cgroup2 -o nosuid,nodev,noexec cgroup2 "$1/unified"
    awk '$3 == "cgroup" { print $2, $4 }' /proc/self/mounts | while read -r folder options; do
        # What is left without the flags of the mount is the controllers, or a name.
        options=$(echo "$options" | tr , '\n' | grep -Ev '^(rw|ro|relatime|nosuid|nodev|noexec|xattr|release_agent=.*)$' | paste -sd,)
        case $options in name=*) options=none,$options ;; esac
        mkdir "$1/${folder##*/}"
        mount -t cgroup -o "nosuid,nodev,noexec,$options" cgroup "$1/${folder##*/}"
    done
}

case ${1-} in
keep) keep "${2-}" ;;
enter) enter "${2-}" ;;
*) fail "unknown step: ${1-}" ;;
esac
