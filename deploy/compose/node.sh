#!/bin/bash
# A Ray node of compose.yaml: `node.sh head ARGUMENTS OF lenspipe run`, or `node.sh worker CPUS`.
#
# What fails is started again here, not by a restart policy: `docker compose up
# --abort-on-container-exit` ends all containers with the first that exits, whatever its policy.
set -u

role=$1
shift

# What asks this script to end asks what it runs.
asked='' child='' status=2
# shellcheck disable=SC2317 # the traps call it
pass_on() {
    asked=yes
    [ -z "$child" ] || kill -TERM "$child" 2>/dev/null
}
trap pass_on TERM INT

attend() { # runs a command, whose exit status is then in `status`
    status=143
    [ -z "$asked" ] || return
    "$@" &
    child=$!
    [ -z "$asked" ] || kill -TERM "$child"
    until ! kill -0 "$child" 2>/dev/null; do wait "$child"; done # a trap ends `wait` too
    wait "$child"
    status=$?
    child=
}

start_afresh() {
    ray stop --force
    rm -rf "${RAY_TMPDIR:-/tmp}/ray"
    attend sleep 5
}

run_head() {
    local left
    for left in 3 2 1 0; do
        attend ray start --head --num-cpus 0 --port 6379 --object-store-memory 268435456 \
            --include-dashboard false
        if ((status == 0)); then attend lenspipe run "$@"; fi
        case $status in 0 | 2 | 3) return ;; esac # done, a mistake, too many failures
        if [ -n "$asked" ] || ((left == 0)); then return; fi
        echo "node.sh: status $status; the run is taken up again, $left times more at most"
        start_afresh
    done
}

run_worker() {
    while [ -z "$asked" ]; do
        attend ray start --address head:6379 --num-cpus "$1" --object-store-memory 536870912 --block
        if [ -z "$asked" ]; then start_afresh; fi
    done
}

case $role in
    head) run_head "$@" ;;
    worker) run_worker "$@" ;;
esac
exit "$status"
