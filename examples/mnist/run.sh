#!/bin/sh
# The whole walkthrough, in the current folder: run.sh [CLIENTS] [ROUNDS] [PORT]
set -eu
here=$(cd "$(dirname "$0")" && pwd)
python=${PYTHON:-python3}
clients=${1:-3}
rounds=${2:-10}
port=${3:-8765}

echo "== one command: server and clients are processes of this machine"
"$python" "$here/run_demo.py" "$clients" --scheme=iid --rounds="$rounds"

echo "== separate terminals: prepare, certificates, server, clients"
"$python" "$here/prepare_data.py" "$clients" --scheme=labels --seed=1
"$python" "$here/generate_ssl.py" --port="$port"
"$python" "$here/run_server.py" "$clients" --rounds="$rounds" &
server=$!
started=""
trap 'kill $server $started 2>/dev/null || true; wait' EXIT
number=0
while [ "$number" -lt "$clients" ]; do
    "$python" "$here/run_client.py" "client_$number" data/mnist_labels &
    started="$started $!"
    number=$((number + 1))
done
wait "$server"
