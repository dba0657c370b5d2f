#!/bin/bash
# A federation whose members share nothing but a network: server, three sites, a submitter, and a
# fourth site that joins in mid-run, each with its own network namespace, user and folder.  One site
# is killed for good and the server twice.  Needs root, iproute2, bubblewrap, PyTorch and mlxtend.
#   world.sh FOLDER BIN
set -u
world=$1 bin=$2
members="srv n1 n2 n3 n4 sub"

as() { # as MEMBER COMMAND
    local who=$1; shift
    ip netns exec "hw-$who" runuser -u "hw-$who" -- env -i HOME="$world/$who" \
        HANSA_HOME="$world/$who/home" PATH="$bin:/usr/bin:/bin" LANG=C.UTF-8 \
        bash -c "cd $world/$who && $*"
}

clean() {
    touch "$world/over"
    for m in $members; do pkill -9 -u "hw-$m"; done
    sleep 0.5
    for m in $members; do ip netns del "hw-$m"; userdel "hw-$m"; done
    ip link del hw-bridge
} 2>/dev/null

trap clean EXIT
ip link add hw-bridge type bridge && ip link set hw-bridge up || exit 77
i=0
for m in $members; do
    i=$((i + 1))
    useradd -M -s /bin/bash "hw-$m" || exit 77
    ip netns add "hw-$m"
    ip link add "hwv-$m" type veth peer name eth0 netns "hw-$m"
    ip link set "hwv-$m" master hw-bridge up
    ip -n "hw-$m" addr add "10.77.0.$i/24" dev eth0
    ip -n "hw-$m" link set eth0 up
    ip -n "hw-$m" link set lo up
    install -d -m 0700 -o "hw-$m" "$world/$m"
done

url=https://10.77.0.1:8443
as srv "hansa server init --folder heart --name heart --url $url" || exit 1
( until [ -e "$world/over" ]; do
    as srv "exec hansa server start --folder heart" >> "$world/server.log" 2>&1; sleep 0.3
  done ) &
sleep 2

site() { # site MEMBER PART
    local line
    line=$(as srv "hansa server invite hospital-$1 --folder heart" 2> "$world/invite.log" | head -1)
    as "$1" "$line --folder site --yes" > /dev/null || exit 1
    as "$1" "hansa split mnist5k --scheme iid --clients 4 -o parts" > /dev/null || exit 1
    as "$1" "hansa site data add parts/client-$2 --as mnist5k --folder site" > /dev/null || exit 1
    printf '\n[policy]\nsubmitters = ["anna"]\napprove = "submitters"\nsandbox = "required"\n' \
        >> "$world/$1/site/site.toml"
    as "$1" "exec hansa site start --folder site" > "$world/$1.log" 2>&1 &
}

until_told() { for _ in $(seq 400); do grep -q "$1" "$world/run.log" && return; sleep 0.2; done; }

site n1 0; site n2 1; site n3 2
line=$(as srv "hansa server invite anna --role submitter --folder heart" 2> /dev/null | head -1)
as sub "$line" > /dev/null || exit 1
as sub "hansa init study --template torch" > /dev/null
for _ in $(seq 100); do
    [ "$(as srv 'hansa server sites --folder heart' | grep -c active)" -eq 3 ] && break; sleep 0.2
done
( as sub "hansa run study --on 10.77.0.1:8443 --set cohort.minimum=2 --rounds 60" \
    > "$world/run.log" 2>&1; echo "exit $?" >> "$world/run.log" ) &
run=$!
until_told "^round 3/"; echo "the server is killed"; pkill -9 -u hw-srv -f "server start"
until_told "^round 6/"; echo "a fourth site joins"; site n4 3
until_told "clients 4/4"; echo "a site is killed"; pkill -9 -u hw-n2
until_told "clients 3/4"; echo "the server is killed again"; pkill -9 -u hw-srv -f "server start"
wait $run
cat "$world/run.log"
for m in n1 n3 n4; do as $m "hansa site ledger --folder site --verify" | tail -1; done
