#!/bin/sh
# Starts Redis with the password from REDIS_PASSWORD. The password is passed by standard input, so
# that no process list shows it.
set -eu
if [ -z "${REDIS_PASSWORD:-}" ]; then
    echo "start.sh: REDIS_PASSWORD is empty; Redis is not started without a password" >&2
    exit 1
fi
conf="$(dirname "$0")/redis.conf"
quoted="$(printf '%s' "$REDIS_PASSWORD" | sed 's/[\\"]/\\&/g')"
# exec, so that Redis itself receives the SIGTERM.
exec redis-server "$conf" - <<END
requirepass "$quoted"
END
