#!/usr/bin/env bash
# A real Slurm of one node on this machine, for the tests and for trying sweeps out. Its files lie in one folder, and it
# listens on 127.0.0.1 alone.
# Usage, as root: scripts/slurm_here.sh start|stop [DIR]      DIR: default /tmp/mxnb-slurm
# `start` prints the line that lets sbatch, squeue and scancel find it. Needs slurm-wlm and munge (Debian's names).
set -euo pipefail

what=${1:-}
dir=${2:-${TMPDIR:-/tmp}/mxnb-slurm}
export SLURM_CONF=$dir/slurm.conf PATH=$PATH:/usr/sbin:/sbin
[[ $what == start || $what == stop ]] || { echo "usage: scripts/slurm_here.sh start|stop [DIR]" >&2; exit 2; }
[ "$(id -u)" = 0 ] || { echo "Slurm's daemons run jobs, so they are started as root; this is $(id -un)." >&2; exit 3; }
for command in munged slurmctld slurmd sinfo; do
    command -v "$command" > /dev/null ||
        { echo "There is no $command here; as root: apt-get install slurm-wlm munge" >&2; exit 3; }
done

stop() { # ends the jobs, then the daemons of this folder, which their pid files name
    local name pid
    if [ -f "$dir/slurmctld.pid" ]; then # without slurmd, nobody would end a job that takes its time to save
        timeout 10 scancel --user="$(id -un)" 2> /dev/null || true
        for _ in $(seq 100); do [ -n "$(timeout 5 squeue --noheader 2> /dev/null)" ] || break; sleep 0.5; done
    fi
    for name in slurmctld slurmd munged; do
        pid=$(cat "$dir/$name.pid" 2> /dev/null) || continue
        [ "$(cat "/proc/$pid/comm" 2> /dev/null)" = "$name" ] || continue # another process has that number by now
        kill "$pid" 2> /dev/null || true
        for _ in $(seq 100); do [ -d "/proc/$pid" ] || break; sleep 0.1; done
        [ ! -d "/proc/$pid" ] || kill -9 "$pid" 2> /dev/null || true
    done
    rm -f "$dir"/*.pid "$dir/munge.socket"*
}

idle() { timeout 5 sinfo --noheader --format=%T 2> /dev/null | grep -qE '^(idle|mixed|allocated)$'; }

free_port() { # free_port FROM: the first port from there on that nobody listens on
    local port=$1
    while (exec 3<> "/dev/tcp/127.0.0.1/$port") 2> /dev/null; do port=$((port + 1)); done
    echo "$port"
}

configure() {
    local control node
    control=$(free_port 16817)
    node=$(free_port $((control + 1)))
    cat > "$SLURM_CONF" << EOF
ClusterName=here
SlurmctldHost=$(hostname)(127.0.0.1)
SlurmctldPort=$control
SlurmdPort=$node
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
# a job that was requeued waits until its old credential has expired, else for two minutes
AuthInfo=socket=$dir/munge.socket,cred_expire=5
StateSaveLocation=$dir/state
SlurmdSpoolDir=$dir/spool
SlurmctldPidFile=$dir/slurmctld.pid
SlurmdPidFile=$dir/slurmd.pid
SlurmctldLogFile=$dir/slurmctld.log
SlurmdLogFile=$dir/slurmd.log
ProctrackType=proctrack/linuxproc
# a job sees the cores it asked for and no others
TaskPlugin=task/affinity
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=batch_sched_delay=0,sched_interval=2
JobRequeue=1
KillWait=30
ReturnToService=2
NodeName=$(hostname) NodeAddr=127.0.0.1 CPUs=$(nproc) RealMemory=$(awk '/^MemTotal/ {print int($2 / 1024)}' /proc/meminfo) State=UNKNOWN
PartitionName=here Nodes=ALL Default=YES OverSubscribe=NO MaxTime=INFINITE State=UP
EOF
}

start() {
    mkdir -p "$dir/state" "$dir/spool"
    chmod 755 "$dir"
    [ -f "$dir/munge.key" ] || (umask 077 && head -c 128 /dev/urandom > "$dir/munge.key")
    configure
    # --force: the folder may be closed to other users, whose jobs are not run here anyway
    munged --force --key-file="$dir/munge.key" --socket="$dir/munge.socket" --pid-file="$dir/munged.pid" \
        --log-file="$dir/munged.log" --seed-file="$dir/munge.seed" 2> /dev/null &&
        slurmctld -c -f "$SLURM_CONF" && # -c: no jobs of an earlier start
        slurmd -f "$SLURM_CONF" || return 1
    local end=$((SECONDS + 30))
    while [ $SECONDS -lt $end ]; do
        if idle; then return 0; fi
        sleep 0.2
    done
    return 1
}

if [ "$what" = stop ]; then
    stop
elif idle; then
    echo "export SLURM_CONF=$SLURM_CONF    # runs already"
else
    stop
    if ! start; then
        tail -n 5 "$dir"/*.log >&2
        echo "Slurm did not come up within 30 seconds; its logs are in $dir" >&2
        stop
        exit 1
    fi
    echo "export SLURM_CONF=$SLURM_CONF"
fi
