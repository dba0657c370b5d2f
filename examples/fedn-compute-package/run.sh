#!/bin/sh
# The tutorial from its first line to its last, in the current folder: run.sh [ROUNDS] [PORT]
set -eu
here=$(cd "$(dirname "$0")" && pwd)
python=${PYTHON:-python3}
rounds=${1:-3}
port=${2:-8443}
export HANSA_HOME="$PWD/home"
hansa() { "$python" -P -m hansa "$@"; }

echo "== the project: client/ is the compute package, data/ stays with the clients"
cp -R "$here/client" client
"$python" "$here/prepare_data.py" 2

echo "== packaging for distribution"
tar -czf package.tar.gz client
hansa import fedn package.tar.gz --to study
mkdir study/data
cp -R data/clients/* study/data/

echo "== test the code before running the client"
export ENTRYPOINT_OPTS="--data_path={data}/mnist.pt"
hansa package run train study
hansa package run validate study

echo "== start the network; upload comes with the session"
hansa server init --folder server --name fedn --url "https://localhost:$port"
"$python" -P -m hansa server start --folder server > server.log 2>&1 &
started=$!
trap 'kill $started 2> /dev/null || true; wait' EXIT

echo "== connect the clients, as the entry point of the container does"
for id in 1 2; do
    line=$(hansa server invite "client$id" --folder server | grep -o "https://[^']*")
    {
        echo "api_url: https://localhost:$port"
        echo "token: \"${line#*#}\""
        echo "submitters: [admin]"
    } > "client$id.yaml"
    ENTRYPOINT_OPTS="--data_path=$PWD/data/clients/$id/mnist.pt" \
        "$python" -P -m hansa.compat.fedn.client run client -in "client$id.yaml" \
        --name "client$id" --data "$PWD/data/clients/$id" --folder "client-$id" &
    started="$started $!"
done

echo "== a session"
hansa run study --on "localhost:$port" --rounds "$rounds" --set cohort.minimum=2 --runs runs
hansa show --runs runs
hansa export --runs runs -o model.safetensors
