#!/bin/sh
# Starts Redis with the password from REDIS_PASSWORD. It goes in by standard input, where no list of processes shows it.
set -eu
if [ -z "${REDIS_PASSWORD:-}" ]; then
    echo "start.sh: REDIS_PASSWORD is empty; this Redis is not started without one" >&2
    exit 1
fi
conf="$(dirname "$0")/redis.conf"
quoted="$(printf '%s' "$REDIS_PASSWORD" | sed 's/[\\"]/\\&/g')"
# exec, so that Redis is what gets the SIGTERM.
exec redis-server "$conf" - <<END
requirepass "$quoted"
END
