#!/bin/sh
# Starts PostgreSQL with the user, the password and the database that DATABASE_URL names, so that the
# nodes and the server share one secret. They are used once, when the volume is empty.
set -eu
case "${DATABASE_URL:-}" in
postgres://*:*@*/* | postgresql://*:*@*/*) ;;
*)
    echo "start.sh: DATABASE_URL must have the form postgres://user:password@host/name" >&2
    exit 1
    ;;
esac
rest="${DATABASE_URL#*://}"
credentials="${rest%@*}"
rest="${rest##*@}"
name="${rest#*/}"
POSTGRES_USER="${credentials%%:*}"
POSTGRES_PASSWORD="${credentials#*:}"
POSTGRES_DB="${name%%\?*}"
case "$POSTGRES_USER$POSTGRES_PASSWORD$POSTGRES_DB" in
*%*)
    echo "start.sh: DATABASE_URL has a % in its user, password or name, which this script does not decode" >&2
    exit 1
    ;;
esac
if [ -z "$POSTGRES_PASSWORD" ]; then
    echo "start.sh: DATABASE_URL has no password; PostgreSQL is not started without one" >&2
    exit 1
fi
export POSTGRES_USER POSTGRES_PASSWORD POSTGRES_DB
# The server need not know it any more.
unset DATABASE_URL
# exec, so that PostgreSQL itself receives the signal to stop.
exec docker-entrypoint.sh postgres
