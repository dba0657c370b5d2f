#!/bin/sh
# The quickstart from its first line to its last, in the current folder: run.sh
set -eu
here=$(cd "$(dirname "$0")" && pwd)
python=${PYTHON:-python3}

echo "== a federation of two sites, and the app where the admin's console looks"
"$python" -m hansa poc -n 2
cp -R "$here" poc/admin/transfer/

echo "== four terminals"
poc/server/startup/start.sh > server.log 2>&1 &
poc/site-1/startup/start.sh > site-1.log 2>&1 &
poc/site-2/startup/start.sh > site-2.log 2>&1 &
trap 'poc/stop_fl.sh > /dev/null 2>&1 || true; wait' EXIT
until poc/admin/startup/fl_admin.sh localhost -c "check_status server" > /dev/null 2>&1; do
    kill -0 $! 2> /dev/null || { cat server.log; exit 1; }
    sleep 0.2
done

echo "== the session"
poc/admin/startup/fl_admin.sh localhost << 'LINES'
upload_app hello-numpy-sag
set_run_number 1
deploy_app hello-numpy-sag all
start_app all
check_status server
monitor_job
check_status server
check_status client
download_job hello-numpy-sag-1
LINES

echo "== the weights"
"$python" -c 'import numpy; print(numpy.load("poc/admin/run_1/hello-numpy-sag-1/models/server.npy"))'

echo "== the end"
poc/admin/startup/fl_admin.sh localhost << 'LINES'
shutdown client
shutdown server
bye
LINES
poc/stop_fl.sh
