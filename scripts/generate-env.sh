#!/usr/bin/env bash
# Writes .env from the environment (such as a CI job's variables), or creates one for a first try.
# Refuses weak secrets.
set -euo pipefail
# Set first, so that the file never exists with wider permissions.
umask 077
# Lengths count bytes, and character ranges are ASCII.
export LC_ALL=C

readonly MIN_JWT_SECRET=32 MIN_REDIS_PASSWORD=16 MIN_DATABASE_PASSWORD=16 MIN_API_KEY=24

# Every key that hubbub accepts; .env.example describes them. It refuses an .env with any other key.
readonly KEYS=(
    SERVER_HOST SERVER_PORT PORT TLS_CERT TLS_KEY ALLOWED_ORIGINS TRUSTED_PROXIES
    REDIS_HOST REDIS_PORT REDIS_PASSWORD REDIS_URL REDIS_CA REDIS_PREFIX
    DATABASE_URL MYSQL_DSN DATABASE_POOL DATA_DIR ACK_AFTER ARCHIVE_BACKLOG RETENTION_DAYS MIGRATE
    AUTH_MODE JWT_SECRET JWT_SECRET_PREVIOUS BETTER_AUTH_SECRET JWT_PUBLIC_KEY_FILE JWT_JWKS_FILE JWT_JWKS_URL
    JWT_ALGORITHM JWT_AUDIENCE JWT_ISSUER JWT_LEEWAY_SECS API_KEYS AUTH_TIMEOUT_SECS
    SIGNUP JWT_EXPIRE_HOURS REFRESH_TOKEN_EXPIRE_DAYS REFRESH_GRACE_SECS LOGIN_ATTEMPTS_PER_ACCOUNT LOGIN_ATTEMPTS_PER_ADDRESS
    SMTP_HOST SMTP_PORT SMTP_USERNAME SMTP_PASSWORD SMTP_TLS MAIL_FROM PUBLIC_URL WORKERS
    AUTHORIZE_URL AUTHORIZE_SECRET AUTHORIZE_TIMEOUT_MS AUTHORIZE_CACHE_SECS
    KEEP_ALIVE_SECS DRAIN_SECS PING_INTERVAL_MS PING_TIMEOUT_MS WRITE_TIMEOUT_SECS
    LOG_FORMAT LOG_LINES_PER_SEC RUST_LOG METRICS_ADDR HUBBUB_CONFIG
    DEDUPE_TTL_SECS PRESENCE_GRACE_MS ROOM_EVENTS_LIMIT RECEIPTS_LIMIT HISTORY_SIZE HISTORY_TTL_SECS ROOM_TTL_SECS MAX_ROOMS
    MAX_PACKET_BYTES MAX_EVENT_BYTES MAX_CONTENT_BYTES MAX_PAYLOAD_BYTES MAX_OUTBOX_BYTES
    MAX_ROOMS_PER_SOCKET MAX_STATUS_SUBSCRIPTIONS MAX_SOCKETS_PER_USER
    RATE_EVENTS_PER_SEC RATE_EVENTS_BURST RATE_JOINS_PER_SEC RATE_BYTES_PER_SEC MAX_RATE_REFUSALS
    RATE_USER_EVENTS_PER_SEC RATE_USER_JOINS_PER_SEC RATE_USER_BYTES_PER_SEC RATE_USER_CONNECTS_PER_SEC
    RATE_IP_EVENTS_PER_SEC RATE_IP_JOINS_PER_SEC RATE_IP_BYTES_PER_SEC RATE_IP_HANDSHAKES_PER_SEC RATE_POSTS_PER_SEC
    RATE_BROADCASTS_PER_SEC BROADCAST_ROLES WS_MAX_MESSAGE WS_IDLE_SECS
    MAX_CONNECTIONS MAX_CONNECTIONS_PER_IP MAX_HANDSHAKES_PER_SEC MAX_UNAUTHENTICATED
)

usage() {
    cat <<END
usage: scripts/generate-env.sh [--output FILE] [--generate [--force]] [--allow-weak-redis-password]

Writes FILE (default: .env, mode 600) from the environment variables that hubbub knows (.env.example lists them).
No secret is ever printed.

  --output FILE   the file to write
  --generate      for a first try: create random values for JWT_SECRET, REDIS_PASSWORD and API_KEYS
                  where they are not set, and a DATABASE_URL for the PostgreSQL of docker-compose.yml
                  or k8s/components/postgres; an existing FILE is not changed
  --force         with --generate: replace an existing FILE (sessions signed with its old secret end,
                  and the old passwords of Redis and PostgreSQL are lost)
  --allow-weak-redis-password
                  accept a Redis without a password, or with a short one: only where no other
                  machine or user can reach it
  --help          print this help

Refused are:
  - a missing JWT_SECRET, unless AUTH_MODE=open is set, or one of BETTER_AUTH_SECRET,
    JWT_PUBLIC_KEY_FILE, JWT_JWKS_FILE and JWT_JWKS_URL replaces it;
  - JWT_SECRET, JWT_SECRET_PREVIOUS or BETTER_AUTH_SECRET of less than $MIN_JWT_SECRET bytes, well-known, or
    of little variety;
  - REDIS_PASSWORD (or the password in REDIS_URL) of less than $MIN_REDIS_PASSWORD bytes, when a Redis is configured;
  - a password in DATABASE_URL or MYSQL_DSN of less than $MIN_DATABASE_PASSWORD bytes;
  - any of API_KEYS of less than $MIN_API_KEY bytes;
  - control characters anywhere.

Exit status: 0 written, 1 refused, 2 wrong usage.
END
}

refusals=0
refuse() {
    echo "generate-env: $*" >&2
    refusals=$((refusals + 1))
}

# Prints the reason why a secret is weak, or nothing. $1: the secret; $2: its minimum length.
weakness() {
    local secret=$1 minimum=$2 folded i previous=-1 code runs=0
    if ((${#secret} < minimum)); then
        echo "has ${#secret} bytes; at least $minimum are required"
        return
    fi
    folded=$(printf '%s' "$secret" | tr '[:upper:]' '[:lower:]' | tr -cd '[:alnum:]')
    case $folded in
    *changeme* | *changethis* | *replaceme* | *placeholder* | *yoursecret* | *yourjwt* | *your256bit* | *supersecret* | \
        *secretkey* | *mysecret* | *password* | *example* | *qwerty* | *letmein* | *donotuse* | *insecure*)
        echo "contains a well-known placeholder"
        return
        ;;
    esac
    local -A seen=()
    for ((i = 0; i < ${#secret}; i++)); do
        printf -v code '%d' "'${secret:i:1}"
        seen[$code]=1
        # Counts pairs of consecutive characters, as in abcdef… and 987654…
        if ((previous >= 0 && (code - previous == 1 || previous - code == 1))); then runs=$((runs + 1)); fi
        previous=$code
    done
    if ((${#seen[@]} < 8)); then
        echo "has only ${#seen[@]} different characters"
    elif ((runs * 2 > ${#secret})); then
        echo "consists mostly of consecutive characters"
    elif [[ ${secret}${secret} == ?*"$secret"?* ]] && [[ ${secret:1}${secret:0:${#secret}-1} == *"$secret"* ]]; then
        # A text that occurs inside its own double, but at neither end, is a repetition of one part.
        echo "is a repetition of one part"
    fi
}

check_secret() {
    local name=$1 secret=$2 minimum=$3 reason
    reason=$(weakness "$secret" "$minimum")
    if [[ -n $reason ]]; then refuse "$name $reason"; fi
}

# 32 random bytes in hexadecimal, which has no character with a special meaning for any parser.
random_secret() {
    if command -v openssl >/dev/null; then
        openssl rand -hex 32
    else
        od -An -N32 -tx1 /dev/urandom | tr -d ' \n'
    fi
}

# Prints one line of .env. A plain value stays unquoted. Any other value is put into double quotes,
# with the characters escaped that the parser of .env treats specially ($ too, which would begin a
# substitution).
line() {
    local name=$1 value=$2
    if [[ $value =~ ^[A-Za-z0-9_./:@%+=,*-]*$ ]]; then
        printf '%s=%s\n' "$name" "$value"
        return
    fi
    value=${value//\\/\\\\}
    value=${value//\"/\\\"}
    value=${value//\$/\\\$}
    printf '%s="%s"\n' "$name" "$value"
}

output=.env generate=no force=no weak_redis=no
while (($#)); do
    case $1 in
    --output)
        output=${2:-}
        if [[ -z $output ]]; then
            echo "generate-env: --output needs a file" >&2
            exit 2
        fi
        shift
        ;;
    --generate) generate=yes ;;
    --force) force=yes ;;
    --allow-weak-redis-password) weak_redis=yes ;;
    -h | --help)
        usage
        exit 0
        ;;
    *)
        echo "generate-env: unknown argument: $1 (see --help)" >&2
        exit 2
        ;;
    esac
    shift
done

if [[ -d $output ]]; then
    echo "generate-env: $output is a directory" >&2
    exit 2
fi

other_keys=${BETTER_AUTH_SECRET-}${JWT_PUBLIC_KEY_FILE-}${JWT_JWKS_FILE-}${JWT_JWKS_URL-}

if [[ $generate == yes ]]; then
    if [[ -e $output && $force == no ]]; then
        echo "generate-env: $output exists already; --force replaces it together with its secrets" >&2
        exit 1
    fi
    if [[ -z $other_keys ]]; then JWT_SECRET=${JWT_SECRET:-$(random_secret)}; fi
    REDIS_PASSWORD=${REDIS_PASSWORD:-$(random_secret)}
    API_KEYS=${API_KEYS:-$(random_secret)}
    if [[ -z ${MYSQL_DSN-} ]]; then
        DATABASE_URL=${DATABASE_URL:-postgres://hubbub:$(random_secret)@postgres/hubbub}
    fi
fi

for key in "${KEYS[@]}"; do
    if [[ ${!key-} == *[[:cntrl:]]* ]]; then refuse "$key contains a newline or another control character"; fi
done

case ${AUTH_MODE-} in
'' | jwt | open) ;;
*) refuse "AUTH_MODE must be jwt or open" ;;
esac
for name in JWT_SECRET JWT_SECRET_PREVIOUS BETTER_AUTH_SECRET; do
    if [[ -n ${!name-} ]]; then check_secret "$name" "${!name}" "$MIN_JWT_SECRET"; fi
done
if [[ -n ${JWT_SECRET-}$other_keys ]]; then
    :
elif [[ ${AUTH_MODE-} == open ]]; then
    echo "generate-env: AUTH_MODE=open: every client may claim every identity" >&2
else
    refuse "JWT_SECRET is missing (--generate creates one; AUTH_MODE=open needs none)"
fi

# Prints the password in a URL.
url_password() {
    local authority=${1#*://} credentials=
    authority=${authority%%/*}
    if [[ $authority == *@* ]]; then credentials=${authority%@*}; fi
    if [[ $credentials == *:* ]]; then printf '%s' "${credentials#*:}"; fi
}

if [[ $weak_redis == no ]]; then
    if [[ -n ${REDIS_URL-} ]]; then
        # REDIS_URL overrides the other keys, REDIS_PASSWORD included.
        check_secret "the password of REDIS_URL" "$(url_password "$REDIS_URL")" "$MIN_REDIS_PASSWORD"
    elif [[ -n ${REDIS_HOST-} || -n ${REDIS_PASSWORD-} ]]; then
        check_secret REDIS_PASSWORD "${REDIS_PASSWORD-}" "$MIN_REDIS_PASSWORD"
    fi
fi

# Prints the password in a MYSQL_DSN: a URL, or user:password@tcp(host:3306)/name. In the latter a
# password may contain @ and /.
dsn_password() {
    local text=${1#mysql://} credentials=
    text=${text#mariadb://}
    text=${text%/*}
    if [[ $text == *@* ]]; then credentials=${text%@*}; fi
    if [[ $credentials == *:* ]]; then printf '%s' "${credentials#*:}"; fi
}

# A database may do without a password: it may know its users by a certificate or a socket.
password=$(url_password "${DATABASE_URL-}")
if [[ -n $password ]]; then
    check_secret "the password of DATABASE_URL" "$password" "$MIN_DATABASE_PASSWORD"
fi
# hubbub reads MYSQL_DSN only without DATABASE_URL.
if [[ -z ${DATABASE_URL-} ]]; then
    password=$(dsn_password "${MYSQL_DSN-}")
    if [[ -n $password ]]; then
        check_secret "the password of MYSQL_DSN" "$password" "$MIN_DATABASE_PASSWORD"
    fi
fi

if [[ -n ${API_KEYS-} ]]; then
    number=0
    while IFS= read -r -d , api_key; do
        number=$((number + 1))
        # Spaces around a comma are not part of a key.
        api_key=${api_key#"${api_key%%[! ]*}"}
        api_key=${api_key%"${api_key##*[! ]}"}
        check_secret "key $number of API_KEYS" "$api_key" "$MIN_API_KEY"
    done < <(printf '%s,' "$API_KEYS")
fi

if ((refusals)); then
    echo "generate-env: nothing written" >&2
    exit 1
fi

# In the same directory as the output, so that the move is atomic and a reader never sees half a
# file.
temporary=$(mktemp "$(dirname -- "$output")/.env.XXXXXXXX")
trap 'rm -f -- "$temporary"' EXIT
{
    echo "# Written by scripts/generate-env.sh. Keep it secret, and out of git."
    for key in "${KEYS[@]}"; do
        if [[ -n ${!key-} ]]; then line "$key" "${!key}"; fi
    done
} >"$temporary"
mv -f -- "$temporary" "$output"
trap - EXIT
echo "generate-env: wrote $output (mode 600)" >&2
