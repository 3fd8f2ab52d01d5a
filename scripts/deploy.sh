#!/usr/bin/env bash
# Starts or updates hubbub with Docker Compose or on Kubernetes, and waits until it is ready.
set -euo pipefail
cd "$(dirname "$0")/.."

# Every key of hubbub that is secret and that the pods get. MYSQL_DSN is not one of them: it is
# another form of DATABASE_URL.
readonly SECRETS=(JWT_SECRET JWT_SECRET_PREVIOUS BETTER_AUTH_SECRET REDIS_PASSWORD REDIS_URL DATABASE_URL API_KEYS AUTHORIZE_SECRET SMTP_PASSWORD)

# The variables of docker-compose.yml itself. This script remembers them in COMPOSE_ENV.
readonly COMPOSE_VARIABLES=(HUBBUB_NODES HUBBUB_HTTP_PORT HUBBUB_TLS HUBBUB_REDIS HUBBUB_NET HUBBUB_IMAGE)
readonly COMPOSE_ENV=deploy/compose.env
readonly MAX_NODES=125
# The default of PostgreSQL's max_connections.
readonly POSTGRES_CONNECTIONS=100

usage() {
    cat <<'END'
usage: scripts/deploy.sh compose [--nodes N] [--no-build] [--port PORT] [--timeout SECS] [--dry-run]
       scripts/deploy.sh k8s [--overlay DIR] [--image NAME:TAG] [--host HOST] [--context NAME]
                             [--secrets-from FILE] [--timeout SECS] [--dry-run]

compose  builds the image, then updates Redis and PostgreSQL (if they changed), the nodes one after
         another, and nginx. The first new node migrates the database
  --nodes N            the number of nodes (default HUBBUB_NODES, or 3; at most 125)
  --no-build           use the existing image (HUBBUB_IMAGE, default hubbub:local)
  --port PORT          the port of nginx on this machine (default HUBBUB_HTTP_PORT, or 8080)
           Remembers --nodes, --port and HUBBUB_NODES, HUBBUB_HTTP_PORT, HUBBUB_TLS, HUBBUB_REDIS,
           HUBBUB_NET and HUBBUB_IMAGE of the environment in deploy/compose.env for the next run.
           An empty variable restores its default.

k8s      applies an overlay and waits for the roll-out; no pod stops before its successor is ready
  --overlay DIR        default k8s/overlays/production
  --image NAME:TAG     replaces the overlay's image
  --host HOST          replaces the overlay's host of the Ingress or the Gateway
  --context NAME       kubectl's context
  --secrets-from FILE  create or update the Secret hubbub-secrets from an .env file

  --timeout SECS       the time limit of each step (default 600)
  --dry-run            print the commands instead of running them; for k8s also the manifests
  --help               print this help

The script stops at the first error with a non-zero status.
END
}

die() {
    echo "deploy: $*" >&2
    exit 1
}
usage_error() {
    echo "deploy: $* (see --help)" >&2
    exit 2
}
log() { echo "deploy: $*" >&2; }
need() { command -v "$1" >/dev/null || die "$1 is required and not on the PATH"; }

# Runs a command, or prints it with --dry-run. Arguments are never secrets.
run() {
    if [[ $dry_run == yes ]]; then
        { printf 'would run:' && printf ' %q' "$@" && echo; } >&2
    else
        "$@"
    fi
}

# Reads one value from an .env file in the format of scripts/generate-env.sh.
env_value() {
    local name=$1 file=$2 text
    text=$(sed -n "s/^$name=//p" "$file" | tail -n 1)
    if [[ $text == \"*\" ]]; then
        text=${text#\"}
        text=$(printf '%s' "${text%\"}" | sed 's/\\\(.\)/\1/g')
    fi
    printf '%s' "$text"
}

# Prints the value of a key of hubbub, from the environment or else from .env, as docker compose
# takes it.
setting() {
    local name=$1 value=''
    if [[ -r .env ]]; then value=$(env_value "$name" .env); fi
    printf '%s' "${!name-$value}"
}

compose() {
    local count wanted old container surplus
    need docker
    docker compose version >/dev/null 2>&1 || die "the compose plugin of docker is required (docker compose version fails)"
    if [[ $dry_run == no ]]; then
        docker info >/dev/null 2>&1 || die "the Docker engine does not answer (docker info fails)"
    fi
    if [[ -n $port ]]; then export HUBBUB_HTTP_PORT=$port; fi
    if [[ -n $nodes ]]; then export HUBBUB_NODES=$nodes; fi
    recall_variables
    wanted=${HUBBUB_NODES:-3}
    # The network of docker-compose.yml has 126 addresses for nodes, and a replacement needs one more
    # than there are nodes.
    if [[ ! $wanted =~ ^[1-9][0-9]{0,2}$ ]] || ((wanted > MAX_NODES)); then
        die "the number of nodes must be between 1 and $MAX_NODES: $wanted"
    fi
    if [[ ${HUBBUB_REDIS:-1} != 0 ]]; then require_redis_password; fi
    HUBBUB_POSTGRES=$(own_postgres)
    export HUBBUB_POSTGRES
    if [[ $HUBBUB_POSTGRES == 1 ]]; then check_connections "$wanted"; fi
    HUBBUB_NGINX_SUM=$(cat deploy/nginx.conf deploy/nginx/*.conf | sha256sum | cut -d ' ' -f 1)
    export HUBBUB_NGINX_SUM
    # Before anything is changed.
    docker compose config --quiet || die "docker-compose.yml is not usable with these settings"
    check_database_is_kept
    if [[ $dry_run == no ]]; then remember_variables; fi

    if [[ $build == yes ]]; then
        run docker compose build hubbub || die "the image could not be built"
    fi
    if [[ ${HUBBUB_REDIS:-1} != 0 ]]; then
        up redis || die "Redis did not become healthy: docker compose logs redis"
    fi
    if [[ $HUBBUB_POSTGRES == 1 ]]; then
        up postgres || die "PostgreSQL did not become healthy: docker compose logs postgres"
    fi

    # Replaces one node after another: first a new one is added, then an old one drains, so that its
    # clients find at least as many other nodes as before. (docker compose up alone would recreate
    # all nodes at the same time.)
    old=$(outdated_nodes)
    count=$(running_nodes | wc -l)
    for container in $old; do
        log "replacing ${container:0:12}"
        add_nodes $((count + 1))
        remove_node "$container"
    done
    # Then the number: too many end in the same way, one after another.
    surplus=$((count - wanted))
    if ((surplus > 0)); then
        for container in $(running_nodes | tail -n "$surplus"); do
            log "removing ${container:0:12}"
            remove_node "$container"
        done
    fi
    add_nodes "$wanted"
    up nginx || die "nginx did not become healthy: docker compose logs nginx"
    log "done: $wanted node(s), port ${HUBBUB_HTTP_PORT:-8080}"
}

# Takes the variables that are not set in the environment from the last run.
recall_variables() {
    local name value
    for name in "${COMPOSE_VARIABLES[@]}"; do
        if [[ -z ${!name+set} && -r $COMPOSE_ENV ]]; then
            value=$(env_value "$name" "$COMPOSE_ENV")
            if [[ -n $value ]]; then export "$name=$value"; fi
        fi
        # Such a value needs no quotes in the file.
        [[ ${!name-} =~ ^[A-Za-z0-9./:@_-]*$ ]] || die "$name contains a character that is not allowed in it"
    done
}

# Written before anything is changed, so that a repeated run continues with the same values.
remember_variables() {
    local name temporary
    temporary=$(mktemp "$COMPOSE_ENV.XXXXXXXX")
    {
        echo "# Written by scripts/deploy.sh. For docker compose: --env-file .env --env-file $COMPOSE_ENV"
        for name in "${COMPOSE_VARIABLES[@]}" HUBBUB_POSTGRES HUBBUB_NGINX_SUM; do
            if [[ -n ${!name-} ]]; then echo "$name=${!name}"; fi
        done
    } >"$temporary"
    chmod 644 "$temporary"
    mv -f -- "$temporary" "$COMPOSE_ENV"
}

# Redis would not start without a password. An external Redis has its own in REDIS_URL.
require_redis_password() {
    if [[ -z $(setting REDIS_PASSWORD) ]]; then
        die "REDIS_PASSWORD is missing: run scripts/generate-env.sh --generate once, or set HUBBUB_REDIS=0 and REDIS_URL for an external Redis"
    fi
}

# Prints 1 if DATABASE_URL names the PostgreSQL of docker-compose.yml, and 0 for another database or
# none.
own_postgres() {
    case $(setting DATABASE_URL) in
    postgres*://*@postgres/* | postgres*://*@postgres:*/*) echo 1 ;;
    *) echo 0 ;;
    esac
}

# Refuses to replace nodes without a database by nodes with one, or the other way round: the first new
# node would take the others down. docs/database.md, "Adding or removing a database".
check_database_is_kept() {
    local container variables new=no old
    if [[ $(setting DATABASE_URL) != none && -n $(setting DATABASE_URL)$(setting MYSQL_DSN) ]]; then new=yes; fi
    for container in $(running_nodes); do
        old=no
        variables=$(docker inspect --format '{{range .Config.Env}}{{println .}}{{end}}' "$container")
        if ! grep -qx 'DATABASE_URL=none' <<<"$variables" && grep -Eq '^(DATABASE_URL|MYSQL_DSN)=.' <<<"$variables"; then old=yes; fi
        if [[ $old != "$new" ]]; then
            die "a database is added or removed only while no node runs: first docker compose rm --stop --force hubbub (docs/deployment.md, \"Adding a database\")"
        fi
    done
}

# Warns if so many nodes, and one more while a node is replaced, may open more connections than
# PostgreSQL accepts by default: docs/database.md, "Sizing".
check_connections() {
    local nodes=$1 pool
    pool=$(setting DATABASE_POOL)
    pool=${pool:-8}
    if [[ $pool =~ ^[1-9][0-9]{0,3}$ ]] && (((nodes + 1) * (pool + 2) + 10 > POSTGRES_CONNECTIONS)); then
        log "warning: $nodes nodes with DATABASE_POOL=$pool may open more than the $POSTGRES_CONNECTIONS connections of PostgreSQL; set a smaller DATABASE_POOL"
    fi
}

# Starts or updates one service and waits until it is healthy.
up() { run docker compose up --detach --no-build --no-deps --wait --wait-timeout "$timeout" "$@"; }

# Starts nodes until there are $1 of them. Existing ones are not changed.
add_nodes() {
    up --no-recreate --scale "hubbub=$1" hubbub ||
        die "the new node did not become healthy; the nodes that serve were not changed: docker compose logs hubbub"
}

# Stops a node, which drains first.
remove_node() {
    run docker stop "$1" >/dev/null || die "the node $1 could not be stopped"
    run docker rm "$1" >/dev/null || die "the node $1 could not be removed"
}

running_nodes() { docker compose ps --quiet hubbub 2>/dev/null || true; }

# Lists the running nodes with other settings or another image than a new node would get.
outdated_nodes() {
    local container hash image
    hash=$(docker compose config --hash hubbub | cut -d ' ' -f 2)
    image=$(docker image inspect --format '{{.Id}}' "${HUBBUB_IMAGE:-hubbub:local}" 2>/dev/null || true)
    for container in $(running_nodes); do
        if [[ $(docker inspect --format '{{index .Config.Labels "com.docker.compose.config-hash"}} {{.Image}}' "$container") != "$hash $image" ]]; then
            echo "$container"
        fi
    done
}

work=
cleanup() { if [[ -n $work ]]; then rm -rf -- "$work"; fi; }
trap cleanup EXIT

k8s() {
    local kubectl=(kubectl) namespace manifests name
    need kubectl
    if [[ -n $context ]]; then kubectl+=(--context "$context"); fi
    [[ -f $overlay/kustomization.yaml ]] || die "$overlay has no kustomization.yaml"
    if [[ -n $secrets_from && ! -r $secrets_from ]]; then die "$secrets_from can't be read"; fi

    # An overlay over the overlay, so that no file of the repository changes. It is inside the
    # repository, because kustomize accepts relative paths only.
    mkdir -p target
    work=$(mktemp -d target/deploy.XXXXXXXX)
    {
        echo "apiVersion: kustomize.config.k8s.io/v1beta1"
        echo "kind: Kustomization"
        echo "resources: [$(realpath --relative-to="$work" "$overlay")]"
        if [[ -n $image ]]; then
            # The overlay has already renamed the image, so the patch addresses the container.
            echo "patches:"
            echo "  - target: {kind: Deployment, name: hubbub}"
            echo "    patch: '[{\"op\": \"replace\", \"path\": \"/spec/template/spec/containers/0/image\", \"value\": \"$image\"}]'"
            echo "  - target: {kind: Job, name: hubbub-migrate}"
            echo "    patch: '[{\"op\": \"replace\", \"path\": \"/spec/template/spec/containers/0/image\", \"value\": \"$image\"}]'"
        fi
        if [[ -n $host ]]; then
            [[ -n $image ]] || echo "patches:"
            # An overlay has an Ingress or a Gateway; a patch without a target does nothing.
            echo "  - target: {kind: Ingress, name: hubbub}"
            echo "    patch: '[{\"op\": \"replace\", \"path\": \"/spec/rules/0/host\", \"value\": \"$host\"}, {\"op\": \"replace\", \"path\": \"/spec/tls/0/hosts/0\", \"value\": \"$host\"}]'"
            echo "  - target: {kind: HTTPRoute, name: hubbub}"
            echo "    patch: '[{\"op\": \"replace\", \"path\": \"/spec/hostnames/0\", \"value\": \"$host\"}]'"
            echo "  - target: {kind: Gateway, name: hubbub}"
            echo "    patch: '[{\"op\": \"replace\", \"path\": \"/spec/listeners/0/hostname\", \"value\": \"$host\"}]'"
        fi
    } >"$work/kustomization.yaml"
    manifests=$work/manifests.yaml
    "${kubectl[@]}" kustomize "$work" >"$manifests" || die "$overlay does not render"
    namespace=$(sed -n '/^kind: Deployment$/,/^---$/s/^  namespace: //p' "$manifests" | head -n 1)
    namespace=${namespace:-default}

    if [[ $dry_run == yes ]]; then
        cat "$manifests"
    else
        "${kubectl[@]}" version >/dev/null 2>&1 || die "the cluster does not answer (kubectl version fails)"
        if ! "${kubectl[@]}" get namespace "$namespace" >/dev/null 2>&1; then
            [[ -f $overlay/namespace.yaml ]] || die "there is no namespace $namespace"
            "${kubectl[@]}" apply -f "$overlay/namespace.yaml" || die "the namespace could not be created"
        fi
        if [[ -n $secrets_from ]]; then apply_secret "$namespace"; fi
        "${kubectl[@]}" --namespace "$namespace" get secret hubbub-secrets >/dev/null 2>&1 ||
            die "there is no Secret hubbub-secrets in $namespace; create it: scripts/generate-env.sh --generate && scripts/deploy.sh k8s --secrets-from .env"
        if has_migration; then require_database_url "$namespace"; fi
    fi
    if has_migration; then
        # A Job can't be changed once it is made.
        run "${kubectl[@]}" --namespace "$namespace" delete job hubbub-migrate --ignore-not-found ||
            die "the migration of the last release could not be deleted"
    fi
    run "${kubectl[@]}" apply -f "$manifests" || die "the cluster refused the manifests"
    for name in redis postgres; do
        if grep -q "^  serviceName: $name\$" "$manifests"; then
            run "${kubectl[@]}" --namespace "$namespace" rollout status "statefulset/$name" --timeout "${timeout}s" ||
                die "$name did not become ready: kubectl -n $namespace describe statefulset/$name"
        fi
    done
    if has_migration; then
        run await_migration "$namespace" ||
            die "the database was not migrated, and the old pods still serve: kubectl -n $namespace logs job/hubbub-migrate"
    fi
    run "${kubectl[@]}" --namespace "$namespace" rollout status deployment/hubbub --timeout "${timeout}s" ||
        die "the roll-out did not end in time, and the old pods still serve: kubectl -n $namespace describe deployment/hubbub; to undo it: kubectl -n $namespace rollout undo deployment/hubbub"
    log "done: namespace $namespace"
}

has_migration() { grep -q '^  name: hubbub-migrate$' "$manifests"; }

# Without the key the migration's pod could not even be made.
require_database_url() {
    local namespace=$1 found
    found=$("${kubectl[@]}" --namespace "$namespace" get secret hubbub-secrets --output 'go-template={{if .data.DATABASE_URL}}yes{{end}}') ||
        die "the Secret hubbub-secrets can't be read"
    [[ $found == yes ]] ||
        die "$overlay has a database, and the Secret hubbub-secrets in $namespace has no DATABASE_URL: docs/deployment.md, \"Adding a database\". Without a database, remove components/database and components/postgres from the overlay"
}

# Waits for the end of the Job, and returns its outcome. (kubectl wait waits for one condition only, so it
# would not notice a failure.) A cluster that does not answer is asked again.
await_migration() {
    local namespace=$1 deadline=$((SECONDS + timeout)) conditions
    local true_conditions='go-template={{range .status.conditions}}{{if eq .status "True"}}{{.type}} {{end}}{{end}}'
    while ((SECONDS < deadline)); do
        conditions=$("${kubectl[@]}" --namespace "$namespace" get job hubbub-migrate --output "$true_conditions") || conditions=''
        case " $conditions" in
        *' Complete '*) return 0 ;;
        *' Failed '*) return 1 ;;
        esac
        sleep 2
    done
    return 1
}

# Passes the secrets in files, because every process on this machine can read arguments.
apply_secret() {
    local namespace=$1 name value keys='' from=()
    mkdir -m 700 "$work/secrets"
    for name in "${SECRETS[@]}"; do
        value=$(env_value "$name" "$secrets_from")
        if [[ -n $value ]]; then
            (umask 077 && printf '%s' "$value" >"$work/secrets/$name")
            from+=(--from-file "$work/secrets/$name")
        fi
    done
    # Public keys are not secret: the ConfigMap names them.
    for name in JWT_SECRET BETTER_AUTH_SECRET JWT_PUBLIC_KEY_FILE JWT_JWKS_FILE JWT_JWKS_URL; do
        keys+=$(env_value "$name" "$secrets_from")
    done
    [[ -n $keys ]] || die "$secrets_from has no JWT_SECRET"
    if [[ -n $(env_value MYSQL_DSN "$secrets_from") && -z $(env_value DATABASE_URL "$secrets_from") ]]; then
        die "$secrets_from has MYSQL_DSN, which the pods don't get: set DATABASE_URL=mysql://user:password@host/name"
    fi
    # Applied from a pipe with --server-side, which leaves no copy of the secrets in an annotation.
    "${kubectl[@]}" --namespace "$namespace" create secret generic hubbub-secrets "${from[@]}" --dry-run=client -o yaml |
        "${kubectl[@]}" --namespace "$namespace" apply --server-side -f - || die "the Secret could not be created"
    log "running pods use a changed Secret after a restart: kubectl -n $namespace rollout restart deployment/hubbub"
}

target=${1:-}
case $target in
compose | k8s) shift ;;
-h | --help)
    usage
    exit 0
    ;;
'') usage_error "the target is missing: compose or k8s" ;;
*) usage_error "unknown target: $target" ;;
esac

dry_run=no timeout=600 build=yes port='' nodes='' overlay=k8s/overlays/production image='' host='' context='' secrets_from=''
while (($#)); do
    option=$1
    shift
    case $option in
    --dry-run) dry_run=yes && continue ;;
    -h | --help)
        usage
        exit 0
        ;;
    --no-build) [[ $target == compose ]] && build=no && continue ;;
    --timeout | --port | --nodes | --overlay | --image | --host | --context | --secrets-from)
        (($#)) || usage_error "$option needs a value"
        value=$1
        shift
        case $target:$option in
        *:--timeout) timeout=$value && continue ;;
        compose:--port) port=$value && continue ;;
        compose:--nodes) nodes=$value && continue ;;
        k8s:--overlay) overlay=${value%/} && continue ;;
        k8s:--image) image=$value && continue ;;
        k8s:--host) host=$value && continue ;;
        k8s:--context) context=$value && continue ;;
        k8s:--secrets-from) secrets_from=$value && continue ;;
        esac
        ;;
    esac
    usage_error "unknown option for $target: $option"
done
[[ $timeout =~ ^[1-9][0-9]*$ ]] || usage_error "--timeout must be in whole seconds"
[[ $port =~ ^([1-9][0-9]*)?$ ]] || usage_error "--port must be a number"
[[ $nodes =~ ^([1-9][0-9]*)?$ ]] || usage_error "--nodes must be a number of at least 1"
# Both are inserted into YAML.
[[ $image =~ ^[A-Za-z0-9./:@_-]*$ ]] || usage_error "--image contains a character that is not allowed in image names"
[[ $host =~ ^[A-Za-z0-9.*-]*$ ]] || usage_error "--host contains a character that is not allowed in host names"

"$target"
