#!/bin/sh
# The quickstart, in the current folder: run.sh [LEARNER], such as learner.py with Keras.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
python=${PYTHON:-python3}
learner=${1:-learner_numpy.py}

echo "== a terminal for the controller, one for each learner, one for the driver"
"$python" "$here/controller.py" &
started=$!
trap 'kill $started 2> /dev/null || true; wait' EXIT
for id in 1 2 3; do
    "$python" "$here/$learner" -l "$id" &
    started="$started $!"
done
"$python" "$here/driver.py"
wait
