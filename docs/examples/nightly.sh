#!/usr/bin/env bash
# One sitting of a run, for cron: silent when all is well, so that cron sends mail only when somebody must look.
# The first argument is the folder with run.toml; the key stands in the environment or in `key.env` there.
set -u
cd "${1:?usage: nightly.sh FOLDER}" || exit 2
if [ -r key.env ]; then
  set -a
  . ./key.env
  set +a
fi
mkdir -p logs
selfinstruct generate --config run.toml --max-minutes 300 --log-format json 2>>logs/run.jsonl
status=$?
case $status in
  0 | 3 | 5) exit 0 ;; # done; stopped, to be continued; the last night's sitting still works
esac
echo "selfinstruct in $PWD left with status $status:" >&2
tail -n 1 logs/run.jsonl >&2
exit "$status"
