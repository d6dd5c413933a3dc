#!/usr/bin/env bash
#
# The deployment files, run for real: builds both images, brings deployment/compose.yaml up with three workers, shares
# 60 jobs among them, and kills workers in the middle of their jobs (guarantee 2).
#
#   tests/deployment.sh
#
# Needs a Docker engine (DOCKER_HOST is honoured), Compose 1.29 or 2, curl, python3 and the free ports 8001 and 8004.
# Without an engine or Compose it says so and succeeds. Base images are pulled; where that is impossible they are made
# with debootstrap (as root), and the programs are compiled on this host instead of in the image of Rust.
# It removes whatever it has started or built, except the base images and the builder's cache, which make the next run
# quick (`docker image prune` removes the latter).

set -euo pipefail

readonly workers=3
readonly jobs=60
readonly debian=debian:bookworm-slim
readonly redis=redis:7
readonly rust=rust:1.95-slim-bookworm
readonly rest=http://127.0.0.1:8001
readonly websocket=http://127.0.0.1:8004
readonly key=deployment-test-key-$$

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
project=cc-executor-test-$$
scratch=
compose=()
up=false

# --- Saying what happens ---------------------------------------------------------------------------------------------

say() { printf 'deployment: %s\n' "$*"; }

passed() { say "ok, $*"; }

failed() {
    say "FAILED, $*" >&2
    exit 1
}

skip() {
    say "skipped, $*"
    exit 0
}

# eventually SECONDS WHAT COMMAND...: waits until the command succeeds.
eventually() {
    local deadline=$((SECONDS + $1)) what=$2
    shift 2
    until "$@"; do
        ((SECONDS < deadline)) || failed "waited in vain until $what"
        sleep 0.2
    done
}

# --- What this needs -------------------------------------------------------------------------------------------------

find_engine() {
    local problem
    command -v docker >/dev/null || skip "no Docker engine reachable (docker is not installed)"
    # Client and engine report separately: only an engine that answers has a version.
    problem=$(docker version --format '{{.Server.Version}}' 2>&1) ||
        skip "no Docker engine reachable (${problem##*$'\n'})"
    if docker compose version >/dev/null 2>&1; then
        compose=(docker compose)
    elif command -v docker-compose >/dev/null; then
        compose=(docker-compose)
    else
        skip "neither 'docker compose' nor 'docker-compose' is installed"
    fi
    say "engine $problem, $("${compose[@]}" version --short | sed 's/^v*/compose /')"
}

# Variables and a .env of whoever runs this must not decide what is tested.
isolate() {
    local variable
    for variable in ${!CC_@}; do unset "$variable"; done
    scratch=$(mktemp -d)
    # One slot a worker: two running jobs are then on two workers, and 60 jobs need all three.
    # The short lease makes a dead worker known within seconds.
    cat >"$scratch/settings.env" <<-END
	CC_API_KEYS=$key
	CC_LEASE=3
	CC_SLOTS=1
	END
    # Names of its own for the images: `latest` may be in use here.
    cat >"$scratch/images.yaml" <<-END
	services:
	  api: {image: "cc-executor-api:$project"}
	  worker: {image: "cc-executor-worker:$project"}
	END
    compose+=(--project-name "$project" --env-file "$scratch/settings.env"
        --file "$root/deployment/compose.yaml" --file "$scratch/images.yaml")
}

# shellcheck disable=SC2317 # The trap calls it.
clean_up() {
    local status=$?
    if $up; then
        ((status == 0)) || "${compose[@]}" logs --no-color --tail 40 >&2 || true
        "${compose[@]}" down --volumes --timeout 1 >/dev/null 2>&1 || say "could not remove the project $project" >&2
    fi
    docker image rm --force "cc-executor-api:$project" "cc-executor-worker:$project" >/dev/null 2>&1 || true
    rm -rf "$scratch"
}

# --- Images ----------------------------------------------------------------------------------------------------------

have_image() { docker image inspect "$1" >/dev/null 2>&1; }

have_or_pull() { have_image "$1" || timeout 600 docker pull --quiet "$1" >/dev/null 2>&1; }

# Quiet, unless it goes wrong.
build() { docker build "$@" >"$scratch/build.log" 2>&1 || failed "docker build: $(tail -n 30 "$scratch/build.log")"; }

# The same as Docker's own image in what matters here: the essential packages, without documentation.
make_debian() {
    say "$debian cannot be pulled: making it with debootstrap"
    command -v debootstrap >/dev/null || failed "debootstrap is not installed"
    ((EUID == 0)) || failed "debootstrap needs root"
    local tree=$scratch/debian
    debootstrap --variant=minbase bookworm "$tree" http://deb.debian.org/debian >"$scratch/debootstrap.log" 2>&1 ||
        failed "debootstrap: $(tail -n 5 "$scratch/debootstrap.log")"
    rm -rf "$tree"/usr/share/{doc,info,locale,man}/* "$tree"/var/{cache/apt,lib/apt/lists,log}/*
    tar --directory "$tree" --create . | docker import --change 'CMD ["bash"]' - "$debian" >/dev/null
    rm -rf "$tree"
}

# As in the official image: a user `redis` who owns /data.
make_redis() {
    say "$redis cannot be pulled: making it from $debian"
    build --tag "$redis" - <<-END
	FROM $debian
	RUN apt-get update && apt-get install --yes --no-install-recommends redis-server && rm -rf /var/lib/apt/lists/* \
	    && mkdir /data && chown redis:redis /data
	VOLUME /data
	WORKDIR /data
	CMD ["redis-server"]
	END
}

build_images() {
    local context=$root arguments=() target
    have_or_pull "$debian" || make_debian
    have_or_pull "$redis" || make_redis
    if ! have_or_pull "$rust"; then
        say "$rust cannot be pulled: compiling on this host"
        (cd "$root" && cargo build --release --locked -p cc-executor-api -p cc-executor-worker)
        context=$scratch/binaries
        arguments=(--build-arg "BUILD_IMAGE=$debian")
        install -D --target-directory "$context" \
            "${CARGO_TARGET_DIR:-$root/target}"/release/cc-executor-{api,worker}
    fi
    for target in api worker; do
        build --file "$root/deployment/Dockerfile" --target "$target" "${arguments[@]}" \
            --tag "cc-executor-$target:$project" "$context"
        # Also shows that the program finds the libraries it was linked with.
        docker run --rm "cc-executor-$target:$project" --help >/dev/null || failed "the image of $target does not run"
    done
    passed "images: api $(megabytes api), worker $(megabytes worker), of which $debian $(size_of "$debian")"
}

megabytes() { size_of "cc-executor-$1:$project"; }

size_of() { docker image inspect --format '{{.Size}}' "$1" | awk '{printf "%.0f MB", $1 / 1e6}'; }

# --- Containers ------------------------------------------------------------------------------------------------------

containers_of() { "${compose[@]}" ps -q "$1"; }

is_healthy() { [[ $(docker inspect --format '{{.State.Health.Status}}' "$1") == healthy ]]; }

bring_up() {
    up=true
    "${compose[@]}" up --detach --no-build --scale worker=$workers >"$scratch/up.log" 2>&1 ||
        failed "compose up: $(tail -n 5 "$scratch/up.log")"
    local service
    for service in redis api; do
        eventually 60 "$service is healthy" is_healthy "$(containers_of "$service")"
    done
    eventually 30 "all $workers workers have announced themselves" knows_all_workers
    passed "up and healthy: redis, api, $workers workers"
}

# A worker is named after its host, which is what Docker calls the container.
knows_all_workers() {
    local known container
    known=$(call /workers) || return 1
    for container in $(containers_of worker); do
        [[ $known == *"${container:0:12}"* ]] || return 1
    done
}

check_hardening() {
    local container name
    for container in $(containers_of api) $(containers_of worker); do
        name=$(docker inspect --format '{{.Name}}' "$container")
        [[ $(docker exec "$container" cat /proc/1/comm) == tini ]] || failed "PID 1 of $name is not tini"
        # Real, effective, saved and file-system user of every process; one that ends meanwhile is no failure.
        docker exec "$container" sh -c 'cat /proc/[0-9]*/status 2>/dev/null || true' | awk '$1 == "Uid:"' | sort -u |
            diff - <(printf 'Uid:\t10001\t10001\t10001\t10001\n') || failed "$name runs processes as another user"
        if docker exec "$container" touch /usr/local/bin/anything 2>/dev/null; then
            failed "$name can change its image"
        fi
    done
    passed "api and workers: tini is PID 1, every process runs as 10001, the image is read-only"
}

# --- The API ---------------------------------------------------------------------------------------------------------

# call PATH [CURL OPTION...]
call() {
    curl --silent --show-error --fail --max-time 10 --header "Authorization: Bearer $key" \
        --header 'Accept: application/json' "${@:2}" "$rest$1"
}

# submit JOB: prints the id, which is the end of Location.
submit() {
    local answer
    answer=$(call /execute --include --header 'Content-Type: application/json' --data "$1")
    [[ ${answer%%$'\r'*} == *' 202'* ]] || failed "submitting was answered with ${answer%%$'\r'*}"
    sed -n 's/\r$//; s/^location: .*\///Ip' <<<"$answer"
}

# look_up ID: prints status, attempt and worker.
look_up() {
    call "/executions/$1" | python3 -c '
import json, sys
execution = json.load(sys.stdin)
print(execution["status"], execution.get("attempt"), execution.get("worker"))'
}

# What `has_ended` and `is_running` learned last.
status='' attempt='' worker=''

has_ended() {
    read -r status attempt worker < <(look_up "$1")
    [[ $status =~ ^(succeeded|failed|timed_out|stalled|cancelled|lost|rejected)$ ]]
}

is_running() {
    if has_ended "$1"; then failed "execution $1 ended early: $status"; fi
    [[ $status == running ]]
}

check_entrances() {
    local answer
    answer=$(curl --silent --output /dev/null --write-out '%{http_code}' "$rest/executions")
    [[ $answer == 401 ]] || failed "a request without a key was answered with $answer"
    curl --silent --show-error --fail --output /dev/null "$rest/health" || failed "8001 does not answer /health"
    curl --silent --show-error --fail --output /dev/null "$websocket/health" || failed "8004 does not answer /health"
    passed "8001 and 8004 answer /health, and nothing else without a key"
}

# --- What the workers do ---------------------------------------------------------------------------------------------

share_jobs() {
    local ids=() id number
    local -A by_worker=()
    for ((number = 0; number < jobs; number++)); do
        id=$(submit '{"command": "hostname; sleep 0.2", "stream": false}')
        ids+=("$id")
    done
    for id in "${ids[@]}"; do
        eventually 60 "execution $id has ended" has_ended "$id"
        [[ $status == succeeded ]] || failed "execution $id ended as $status"
        by_worker[$worker]=$((${by_worker[$worker]:-0} + 1))
    done
    ((${#by_worker[@]} == workers)) || failed "only ${!by_worker[*]} ran any of the $jobs jobs"
    passed "$jobs jobs succeeded, shared ${by_worker[*]} by $workers workers"
}

# Two jobs run on two workers; both workers are killed as by `kill -9`, and the third one is left.
kill_workers() {
    local once twice worker_of_once worker_of_twice
    once=$(submit '{"command": "sleep 8", "stream": false, "max_attempts": 1}')
    twice=$(submit '{"command": "sleep 8", "stream": false, "max_attempts": 2}')
    eventually 10 "the first job runs" is_running "$once"
    worker_of_once=$worker
    eventually 10 "the second job runs" is_running "$twice"
    worker_of_twice=$worker
    kill_worker "$worker_of_once"
    kill_worker "$worker_of_twice"

    eventually 30 "the job with one attempt has ended" has_ended "$once"
    [[ "$status $attempt" == 'lost 1' ]] || failed "the job with one attempt ended as $status in attempt $attempt"
    passed "killed $worker_of_once: its job, which had one attempt, ended as lost"

    eventually 60 "the job with two attempts has ended" has_ended "$twice"
    [[ "$status $attempt" == 'succeeded 2' ]] || failed "the job with two attempts ended as $status in attempt $attempt"
    [[ $worker != "$worker_of_twice" ]] || failed "the second attempt ran on $worker again"
    passed "killed $worker_of_twice: its job, which had two attempts, succeeded in the second on $worker"
}

# kill_worker NAME: SIGKILL for its container, and with it for every process inside.
kill_worker() {
    local container
    for container in $(containers_of worker); do
        if [[ $1 == *"${container:0:12}"* ]]; then
            docker kill --signal KILL "$container" >/dev/null
            return
        fi
    done
    failed "no container belongs to worker $1"
}

find_engine
trap clean_up EXIT
# Interrupted, it lets the command that runs finish first, so that nothing appears after cleaning up.
trap 'exit 130' INT
trap 'exit 143' TERM
isolate
build_images
bring_up
check_hardening
check_entrances
share_jobs
kill_workers
say "passed in $SECONDS s"
