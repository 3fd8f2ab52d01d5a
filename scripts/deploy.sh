#!/usr/bin/env bash
# Brings hubbub up, or up to date, with Docker Compose or on Kubernetes, and waits until it serves.
set -euo pipefail
cd "$(dirname "$0")/.."

usage() {
    cat <<'END'
usage: scripts/deploy.sh compose [--no-build] [--port PORT] [--timeout SECS] [--dry-run]
       scripts/deploy.sh k8s [--overlay DIR] [--image NAME:TAG] [--host HOST] [--context NAME]
                             [--secrets-from FILE] [--timeout SECS] [--dry-run]

compose  builds the image, then renews Redis (if it changed), the three nodes one after another, and nginx
  --no-build           take the image as it is (HUBBUB_IMAGE, default hubbub:local)
  --port PORT          where nginx listens on this machine (default 8080)

k8s      applies an overlay and waits for the roll-out; no pod goes before its successor is ready
  --overlay DIR        default k8s/overlays/production
  --image NAME:TAG     instead of the overlay's
  --host HOST          instead of the overlay's, for the Ingress
  --context NAME       kubectl's context
  --secrets-from FILE  make or renew the Secret hubbub-secrets from an .env file

  --timeout SECS       how long to wait for each step (default 600)
  --dry-run            say what would be done, do nothing; for k8s prints the manifests
  --help               this

It stops at the first error with a non-zero status.
END
}

die() {
    echo "deploy: $*" >&2
    exit 1
}
wrong() {
    echo "deploy: $* (see --help)" >&2
    exit 2
}
say() { echo "deploy: $*" >&2; }
need() { command -v "$1" >/dev/null || die "$1 is needed and not on the PATH"; }

# Does it, or says it. Arguments are never secrets.
run() {
    if [[ $dry_run == yes ]]; then
        { printf 'would run:' && printf ' %q' "$@" && echo; } >&2
    else
        "$@"
    fi
}

# One value of an .env file, as scripts/generate-env.sh writes them.
env_value() {
    local name=$1 file=$2 text
    text=$(sed -n "s/^$name=//p" "$file" | tail -n 1)
    if [[ $text == \"*\" ]]; then
        text=${text#\"}
        text=$(printf '%s' "${text%\"}" | sed 's/\\\(.\)/\1/g')
    fi
    printf '%s' "$text"
}

compose() {
    local node
    need docker
    docker compose version >/dev/null 2>&1 || die "the compose plugin of docker is needed (docker compose version fails)"
    if [[ $dry_run == no ]]; then
        docker info >/dev/null 2>&1 || die "the Docker engine does not answer (docker info fails)"
    fi
    if [[ -n $port ]]; then export HUBBUB_HTTP_PORT=$port; fi
    HUBBUB_NGINX_SUM=$(sha256sum deploy/nginx.conf | cut -d ' ' -f 1)
    export HUBBUB_NGINX_SUM
    # Also says which secret is missing, before anything is touched.
    docker compose config --quiet || die "docker-compose.yml can't be used as it stands"

    if [[ $build == yes ]]; then
        run docker compose build hubbub-1 || die "the image could not be built"
    fi
    run docker compose up --detach --no-build --wait --wait-timeout "$timeout" redis || die "Redis did not become healthy: docker compose logs redis"
    # One at a time: clients of the one that drains go to the other two.
    for node in hubbub-1 hubbub-2 hubbub-3; do
        say "renewing $node"
        run docker compose up --detach --no-build --no-deps --wait --wait-timeout "$timeout" "$node" ||
            die "$node did not become healthy, the others were left as they were: docker compose logs $node"
    done
    run docker compose up --detach --no-build --no-deps --wait --wait-timeout "$timeout" nginx || die "nginx did not become healthy: docker compose logs nginx"
    say "done: port ${HUBBUB_HTTP_PORT:-8080}"
}

work=
cleanup() { if [[ -n $work ]]; then rm -rf -- "$work"; fi; }
trap cleanup EXIT

k8s() {
    local kubectl=(kubectl) namespace manifests
    need kubectl
    if [[ -n $context ]]; then kubectl+=(--context "$context"); fi
    [[ -f $overlay/kustomization.yaml ]] || die "$overlay has no kustomization.yaml"
    if [[ -n $secrets_from && ! -r $secrets_from ]]; then die "$secrets_from can't be read"; fi

    # An overlay over the overlay, so that no file of the repository is changed. Inside the repository, because kustomize takes
    # relative paths only.
    mkdir -p target
    work=$(mktemp -d target/deploy.XXXXXXXX)
    {
        echo "apiVersion: kustomize.config.k8s.io/v1beta1"
        echo "kind: Kustomization"
        echo "resources: [$(realpath --relative-to="$work" "$overlay")]"
        if [[ -n $image ]]; then
            # The overlay has renamed the image already, so it is found by its container.
            echo "patches:"
            echo "  - target: {kind: Deployment, name: hubbub}"
            echo "    patch: '[{\"op\": \"replace\", \"path\": \"/spec/template/spec/containers/0/image\", \"value\": \"$image\"}]'"
        fi
        if [[ -n $host ]]; then
            [[ -n $image ]] || echo "patches:"
            echo "  - target: {kind: Ingress, name: hubbub}"
            echo "    patch: '[{\"op\": \"replace\", \"path\": \"/spec/rules/0/host\", \"value\": \"$host\"}, {\"op\": \"replace\", \"path\": \"/spec/tls/0/hosts/0\", \"value\": \"$host\"}]'"
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
            "${kubectl[@]}" apply -f "$overlay/namespace.yaml" || die "the namespace could not be made"
        fi
        if [[ -n $secrets_from ]]; then apply_secret "$namespace"; fi
        "${kubectl[@]}" --namespace "$namespace" get secret hubbub-secrets >/dev/null 2>&1 ||
            die "there is no Secret hubbub-secrets in $namespace; make it: scripts/generate-env.sh --generate && scripts/deploy.sh k8s --secrets-from .env"
    fi
    run "${kubectl[@]}" apply -f "$manifests" || die "the cluster refused the manifests"
    if grep -q '^kind: StatefulSet$' "$manifests"; then
        run "${kubectl[@]}" --namespace "$namespace" rollout status statefulset/redis --timeout "${timeout}s" ||
            die "Redis did not become ready: kubectl -n $namespace describe statefulset/redis"
    fi
    run "${kubectl[@]}" --namespace "$namespace" rollout status deployment/hubbub --timeout "${timeout}s" ||
        die "the roll-out did not end in time, the old pods still serve: kubectl -n $namespace describe deployment/hubbub; back: kubectl -n $namespace rollout undo deployment/hubbub"
    say "done: namespace $namespace"
}

# By files and not by arguments, which every process on this machine could read.
apply_secret() {
    local namespace=$1 name value keys='' from=()
    mkdir -m 700 "$work/secrets"
    for name in JWT_SECRET JWT_SECRET_PREVIOUS BETTER_AUTH_SECRET REDIS_PASSWORD REDIS_URL API_KEYS AUTHORIZE_SECRET; do
        value=$(env_value "$name" "$secrets_from")
        if [[ -n $value ]]; then
            (umask 077 && printf '%s' "$value" >"$work/secrets/$name")
            from+=(--from-file "$work/secrets/$name")
        fi
    done
    # Public keys are no secret: where they are named instead, the ConfigMap says so.
    for name in JWT_SECRET BETTER_AUTH_SECRET JWT_PUBLIC_KEY_FILE JWT_JWKS_FILE JWT_JWKS_URL; do
        keys+=$(env_value "$name" "$secrets_from")
    done
    [[ -n $keys ]] || die "$secrets_from has no JWT_SECRET"
    # Applied from the pipe with --server-side: no copy of the secrets is left in an annotation.
    "${kubectl[@]}" --namespace "$namespace" create secret generic hubbub-secrets "${from[@]}" --dry-run=client -o yaml |
        "${kubectl[@]}" --namespace "$namespace" apply --server-side -f - || die "the Secret could not be made"
    say "a changed Secret reaches pods when they are made anew: kubectl -n $namespace rollout restart deployment/hubbub"
}

target=${1:-}
case $target in
compose | k8s) shift ;;
-h | --help)
    usage
    exit 0
    ;;
'') wrong "say compose or k8s" ;;
*) wrong "unknown target: $target" ;;
esac

dry_run=no timeout=600 build=yes port='' overlay=k8s/overlays/production image='' host='' context='' secrets_from=''
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
    --timeout | --port | --overlay | --image | --host | --context | --secrets-from)
        (($#)) || wrong "$option needs a value"
        value=$1
        shift
        case $target:$option in
        *:--timeout) timeout=$value && continue ;;
        compose:--port) port=$value && continue ;;
        k8s:--overlay) overlay=${value%/} && continue ;;
        k8s:--image) image=$value && continue ;;
        k8s:--host) host=$value && continue ;;
        k8s:--context) context=$value && continue ;;
        k8s:--secrets-from) secrets_from=$value && continue ;;
        esac
        ;;
    esac
    wrong "unknown option for $target: $option"
done
[[ $timeout =~ ^[1-9][0-9]*$ ]] || wrong "--timeout is in whole seconds"
[[ $port =~ ^([1-9][0-9]*)?$ ]] || wrong "--port is a number"
# They are put into YAML.
[[ $image =~ ^[A-Za-z0-9./:@_-]*$ ]] || wrong "--image has a character that no image name has"
[[ $host =~ ^[A-Za-z0-9.*-]*$ ]] || wrong "--host has a character that no host name has"

"$target"
