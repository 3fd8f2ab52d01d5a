#!/usr/bin/env bash
# Writes .env from the environment (a CI job's variables), or makes one for a first try. Weak secrets end it.
set -euo pipefail
# From the very start: at no moment does the file exist with wider permissions.
umask 077
# Lengths are in bytes, and ranges mean ASCII.
export LC_ALL=C

readonly MIN_JWT_SECRET=32 MIN_REDIS_PASSWORD=16 MIN_API_KEY=24

# Every key that hubbub takes; .env.example explains them. It refuses an .env with any other.
readonly KEYS=(
    SERVER_HOST SERVER_PORT PORT TLS_CERT TLS_KEY ALLOWED_ORIGINS TRUSTED_PROXIES
    REDIS_HOST REDIS_PORT REDIS_PASSWORD REDIS_URL REDIS_CA
    AUTH_MODE JWT_SECRET JWT_SECRET_PREVIOUS BETTER_AUTH_SECRET JWT_PUBLIC_KEY_FILE JWT_JWKS_FILE JWT_JWKS_URL
    JWT_ALGORITHM JWT_AUDIENCE JWT_ISSUER JWT_LEEWAY_SECS API_KEYS AUTH_TIMEOUT_SECS
    AUTHORIZE_URL AUTHORIZE_SECRET AUTHORIZE_TIMEOUT_MS AUTHORIZE_CACHE_SECS
    DRAIN_SECS PING_INTERVAL_MS PING_TIMEOUT_MS WRITE_TIMEOUT_SECS
    LOG_FORMAT RUST_LOG METRICS_ADDR HUBBUB_CONFIG
    DEDUPE_TTL_SECS PRESENCE_GRACE_MS ROOM_EVENTS_LIMIT HISTORY_SIZE HISTORY_TTL_SECS ROOM_TTL_SECS MAX_ROOMS
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

  --output FILE   where to
  --generate      for a first try: make JWT_SECRET, REDIS_PASSWORD and API_KEYS at random where they are not given;
                  an existing FILE is left alone
  --force         with --generate: replace it (sessions signed with its old secret end, and so does Redis's password)
  --allow-weak-redis-password
                  take a Redis without a password, or with a short one: only where nobody else can reach it
  --help          this

Refused: JWT_SECRET missing (unless AUTH_MODE=open is said outright, or BETTER_AUTH_SECRET, JWT_PUBLIC_KEY_FILE, JWT_JWKS_FILE or
JWT_JWKS_URL stands in its place); it, the one before it or BetterAuth's of less than $MIN_JWT_SECRET bytes, well-known or of little variety; REDIS_PASSWORD (or the one in REDIS_URL) of less than $MIN_REDIS_PASSWORD bytes when a Redis is named; any of API_KEYS
of less than $MIN_API_KEY; control characters anywhere. Exit status: 0 written, 1 refused, 2 wrong usage.
END
}

refusals=0
refuse() {
    echo "generate-env: $*" >&2
    refusals=$((refusals + 1))
}

# Says why a secret is weak, or nothing. $1: the secret; $2: its least length.
weakness() {
    local secret=$1 least=$2 folded i previous=-1 code runs=0
    if ((${#secret} < least)); then
        echo "has ${#secret} bytes; at least $least are needed"
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
        # abcdef… and 987654…
        if ((previous >= 0 && (code - previous == 1 || previous - code == 1))); then runs=$((runs + 1)); fi
        previous=$code
    done
    if ((${#seen[@]} < 8)); then
        echo "has only ${#seen[@]} different characters"
    elif ((runs * 2 > ${#secret})); then
        echo "is mostly a sequence of neighbours"
    elif [[ ${secret}${secret} == ?*"$secret"?* ]] && [[ ${secret:1}${secret:0:${#secret}-1} == *"$secret"* ]]; then
        # A text that is found inside its own double, but at neither end, is one part repeated.
        echo "is one part repeated"
    fi
}

check_secret() {
    local name=$1 secret=$2 least=$3 why
    why=$(weakness "$secret" "$least")
    if [[ -n $why ]]; then refuse "$name $why"; fi
}

# 32 random bytes in hexadecimal: no character of it means anything to any parser.
random_secret() {
    if command -v openssl >/dev/null; then
        openssl rand -hex 32
    else
        od -An -N32 -tx1 /dev/urandom | tr -d ' \n'
    fi
}

# A plain value stays as it is; any other goes in double quotes, with what the parser of .env takes for itself escaped ($ too:
# it would begin a substitution).
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
        echo "generate-env: $output is there already; --force replaces it, and its secrets with it" >&2
        exit 1
    fi
    if [[ -z $other_keys ]]; then JWT_SECRET=${JWT_SECRET:-$(random_secret)}; fi
    REDIS_PASSWORD=${REDIS_PASSWORD:-$(random_secret)}
    API_KEYS=${API_KEYS:-$(random_secret)}
fi

for key in "${KEYS[@]}"; do
    if [[ ${!key-} == *[[:cntrl:]]* ]]; then refuse "$key contains a newline or another control character"; fi
done

case ${AUTH_MODE-} in
'' | jwt | open) ;;
*) refuse "AUTH_MODE is neither jwt nor open" ;;
esac
for name in JWT_SECRET JWT_SECRET_PREVIOUS BETTER_AUTH_SECRET; do
    if [[ -n ${!name-} ]]; then check_secret "$name" "${!name}" "$MIN_JWT_SECRET"; fi
done
if [[ -n ${JWT_SECRET-}$other_keys ]]; then
    :
elif [[ ${AUTH_MODE-} == open ]]; then
    echo "generate-env: AUTH_MODE=open: anybody may claim to be anybody" >&2
else
    refuse "JWT_SECRET is missing (--generate makes one; AUTH_MODE=open does without)"
fi

if [[ $weak_redis == no ]]; then
    if [[ -n ${REDIS_URL-} ]]; then
        authority=${REDIS_URL#*://}
        authority=${authority%%/*}
        credentials=
        if [[ $authority == *@* ]]; then credentials=${authority%@*}; fi
        password=
        if [[ $credentials == *:* ]]; then password=${credentials#*:}; fi
        # REDIS_URL wins over the parts, REDIS_PASSWORD included.
        check_secret "the password of REDIS_URL" "$password" "$MIN_REDIS_PASSWORD"
    elif [[ -n ${REDIS_HOST-} || -n ${REDIS_PASSWORD-} ]]; then
        check_secret REDIS_PASSWORD "${REDIS_PASSWORD-}" "$MIN_REDIS_PASSWORD"
    fi
fi

if [[ -n ${API_KEYS-} ]]; then
    number=0
    while IFS= read -r -d , api_key; do
        number=$((number + 1))
        # Spaces around a comma are no part of a key.
        api_key=${api_key#"${api_key%%[! ]*}"}
        api_key=${api_key%"${api_key##*[! ]}"}
        check_secret "key $number of API_KEYS" "$api_key" "$MIN_API_KEY"
    done < <(printf '%s,' "$API_KEYS")
fi

if ((refusals)); then
    echo "generate-env: nothing written" >&2
    exit 1
fi

# Beside the target, so that the move is one step and nobody ever reads half a file.
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
