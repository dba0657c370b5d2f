#!/bin/sh
# The tutorial from its first line to its last, in the current folder: run.sh [ROUNDS]
set -eu
here=$(cd "$(dirname "$0")" && pwd)
python=${PYTHON:-python3}
rounds=${1:-5}
hansa() { "$python" -P -m hansa "$@"; }

echo "== the model initiator's part: data, a seed model, the compute package"
cp -R "$here/client" client
"$python" "$here/prepare_data.py" 2
tar -czf package.tar.gz client

echo "== package and seed model become a project"
hansa import fedn package.tar.gz --seed-model seed.npz --to study
mv data study/data

echo "== train.py and validate.py, as a client runs them"
hansa package run train study
hansa package run validate study

echo "== the same at two clients, in simulation and as processes over TLS"
hansa run study --rounds "$rounds" --runs runs
hansa dev study --rounds 1 --runs rehearsal
