# What a person changing the code runs. `just` alone lists it.

target_dir := env('CARGO_TARGET_DIR', 'target')
triple := arch() + '-unknown-linux-musl'
executable := target_dir / triple / 'release' / 'thoughtmesh-runtime'
image := 'thoughtmesh-runtime:' + version
version := `sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml`

tools := target_dir / 'tools/bin'

# Crates are named in the executable by their own names, wherever cargo keeps their sources
crates := env('CARGO_HOME', env('HOME', '') / '.cargo') / 'registry/src/index.crates.io-1949cf8c6b5b557f'
# As .cargo/config.toml and the Containerfile have it: flags in the environment take the place of those there.
packed := '-C link-arg=-Wl,-z,pack-relative-relocs'
rustflags := env('RUSTFLAGS', packed) + ' --remap-path-prefix=' + crates + '='

# What the example is told, on this machine and in the image
export example_objective := 'Analyze the repository and create a performance optimization report'
export example_key_results := '["Identify top 5 bottlenecks", "Suggest concrete improvements", "Estimate performance gains"]'
export example_tools := '[{"name": "filesystem"}]'

# List the recipes
default:
    @{{ just_executable() }} --list --unsorted

# Run an example agent on this repository: a committed transcript, or the model of THOUGHTMESH_MODEL_CONFIG
run-example:
    #!/usr/bin/env bash
    set -euo pipefail
    cargo build --locked
    rm -f target/performance-report.md
    if [[ -z "${THOUGHTMESH_MODEL_CONFIG:-}" ]]; then
        echo 'THOUGHTMESH_MODEL_CONFIG is not set: replaying the committed transcript, without a model' >&2
        export THOUGHTMESH_MODEL_CONFIG='{"provider": "replay", "name": "tests/example/transcript.jsonl"}'
    else
        echo 'using the model of THOUGHTMESH_MODEL_CONFIG' >&2
    fi
    # Whatever else is in the environment would be told to the model as context. Unset, because arguments of `env -i` can be read by others.
    export THOUGHTMESH_OBJECTIVE=$example_objective THOUGHTMESH_KEY_RESULTS=$example_key_results THOUGHTMESH_TOOLS=$example_tools
    kept='PATH|HOME|RUST_LOG|SSL_CERT_(FILE|DIR)|((HTTPS?|ALL|NO)_PROXY|(https?|all|no)_proxy)'
    kept+='|(THOUGHTMESH|OPENAI|AZURE|ANTHROPIC|GOOGLE|GEMINI|GCE|MISTRAL|OLLAMA)_.*'
    for name in $(compgen -e); do
        [[ "$name" =~ ^($kept)$ ]] || unset "$name"
    done
    export THOUGHTMESH_WORKSPACE='{{ justfile_directory() }}'
    exec env -u _ -u SHLVL {{ quote(target_dir / 'debug' / 'thoughtmesh-runtime') }}

# Run all tests
test:
    cargo test --locked

# Measure what runs cost beside a bare loop and curl, then tools and long conversations; `--short`, `--json FILE`
[positional-arguments]
bench *options:
    #!/usr/bin/env bash
    set -euo pipefail
    # What is released is measured, where it can be built; with its flags, because it takes its place.
    target=()
    if compgen -G "$(rustc --print target-libdir --target {{ triple }})/libstd-*" >/dev/null; then
        target=(--target {{ triple }})
        export RUSTFLAGS={{ quote(rustflags) }}
    fi
    cargo bench --locked "${target[@]}" --bench runs -- "$@"
    [[ " $* " == *" --short "* ]] || cargo bench --locked "${target[@]}" --bench bench --bench mcp --bench context

# Show what the executable is made of: bytes of machine code by crate, and the largest functions
size:
    #!/usr/bin/env bash
    set -euo pipefail
    # In a folder of its own: the executable with its symbols must not pass for the one that is released.
    export CARGO_TARGET_DIR={{ quote(target_dir / 'size') }} CARGO_PROFILE_RELEASE_STRIP=none RUSTFLAGS={{ quote(rustflags) }}
    cargo build --release --locked --target {{ triple }}
    symbols=$(nm --defined-only --print-size --size-sort --reverse-sort --radix=d --demangle "$CARGO_TARGET_DIR/{{ triple }}/release/thoughtmesh-runtime" | awk '$3 ~ /[tTwW]/')
    echo 'bytes by crate, the rest in C and assembler:'
    awk '{
        name = substr($0, length($1 $2 $3) + 4)
        sub(/^[^A-Za-z_]*((dyn|mut|const) )*/, "", name)
        crate = match(name, /^[a-z_0-9]+::/) ? substr(name, 1, RLENGTH - 2) : "C"
        bytes[crate] += $2
    } END { for (crate in bytes) printf "%9d %s\n", bytes[crate], crate }' <<<"$symbols" | sort --reverse --numeric-sort | head -20
    echo 'largest functions:'
    awk 'NR <= 20 { printf "%9d %s\n", $2, substr($0, length($1 $2 $3) + 4, 100) }' <<<"$symbols"

# Hold requests to the vendors' Python types, run through a real LiteLLM proxy and with MCP servers of others; ends with 75 without PyPI or npm
interop:
    bash tests/interop/run

# The official conformance suite for MCP clients, each scenario without OAuth; needs PyPI and npm, ends with 75 without
conformance:
    bash tests/conformance/run

# The whole gate: format, lints with warnings denied, tests
check: && test
    cargo fmt --check
    cargo clippy --locked --all-targets -- -D warnings

# Kill, cut and damage a run at every point that there is; `just test` tries a sample. TESTING_SEED repeats random kills
torture:
    TORTURE=1 cargo test --locked --test it -- crash:: stop:: resume::

# What the journal costs: a run with and without it, on the disk that holds target/
bench-journal:
    TORTURE=1 cargo test --release --locked --test it -- crash::a_journal_costs_its_flushes

# Build the static executable for this machine's architecture, and show its kind and size
build:
    RUSTFLAGS={{ quote(rustflags) }} cargo build --release --locked --target {{ triple }}
    @! command -v file >/dev/null || file {{ quote(executable) }}
    @echo {{ quote(executable) }}: $(wc -c <{{ quote(executable) }}) bytes

# Build the image with podman, docker or buildah; options go to its `build`, such as --platform linux/arm64
image *options:
    #!/usr/bin/env bash
    set -euo pipefail
    revision=$(git describe --always --abbrev=40 --dirty 2>/dev/null || echo unknown)
    # The time of the commit in place of now, so that the same commit is the same image.
    export SOURCE_DATE_EPOCH=$(git log -1 --format=%ct 2>/dev/null || echo 0)
    for tool in podman docker buildah; do
        if "$tool" info &>/dev/null; then
            time=(--timestamp "$SOURCE_DATE_EPOCH")
            [[ "$tool" != docker ]] || time=()
            exec "$tool" build --file Containerfile --tag {{ quote(image) }} "${time[@]}" \
                --label org.opencontainers.image.version={{ quote(version) }} \
                --label org.opencontainers.image.revision="$revision" {{ options }} .
        fi
    done
    echo 'image: neither podman nor docker nor buildah works here, install one of them' >&2
    exit 1

# The name that `just image` gives it
[private]
image-name:
    @echo localhost/{{ image }}

# Run the example inside the image: read-only root, no capabilities, no new privileges, a random user, no network
run-image *options:
    #!/usr/bin/env bash
    set -euo pipefail
    tool=podman
    podman info &>/dev/null || tool=docker
    workspace=$(mktemp -d)
    trap 'rm -rf "$workspace"' EXIT
    mkdir -p "$workspace/target" "$workspace/tests" target
    cp -r src "$workspace/"
    cp -r tests/example "$workspace/tests/"
    chmod -R a+rwX "$workspace"
    "$tool" run --rm --read-only --cap-drop all --security-opt no-new-privileges --network none \
        --user $((100000 + RANDOM * 32768 + RANDOM)) --volume "$workspace:/workspace" \
        --env THOUGHTMESH_MODEL_CONFIG='{"provider": "replay", "name": "tests/example/transcript.jsonl"}' \
        --env THOUGHTMESH_OBJECTIVE="$example_objective" --env THOUGHTMESH_KEY_RESULTS="$example_key_results" \
        --env THOUGHTMESH_TOOLS="$example_tools" {{ options }} {{ quote(image) }}
    cp "$workspace/target/performance-report.md" target/

# Build executable and image twice, in different folders at different times, and compare every byte
reproducible: build
    #!/usr/bin/env bash
    set -euo pipefail
    scratch=$(mktemp -d)
    trap 'rm -rf "$scratch"' EXIT
    copy=$scratch/another/folder/with/a/longer/name
    mkdir -p "$copy" "$scratch/first" "$scratch/second"
    cp {{ quote(executable) }} "$scratch/first/"
    git ls-files -z --cached --others --exclude-standard | xargs -0 cp --parents --target-directory "$copy"
    CARGO_TARGET_DIR=$copy/target just --justfile "$copy/justfile" build
    cp "$copy/target/{{ triple }}/release/thoughtmesh-runtime" "$scratch/second/"
    cmp "$scratch"/{first,second}/thoughtmesh-runtime
    for build in first second; do
        just image --quiet --no-cache --build-context "build=$scratch/$build"
        # A folder: an archive of it would have the time of now.
        podman save --quiet --format oci-dir --output "$scratch/$build/image" {{ quote(image) }}
    done
    diff --recursive "$scratch"/{first,second}/image
    (cd "$scratch/first" && sha256sum thoughtmesh-runtime image/index.json)
    echo 'reproducible: both builds have the same bytes'

# Run the image as a cluster does, with podman and runc; needs root, ends with 75 where containers are forbidden
containers:
    bash tests/containers/run

# List what is in the executable, as CycloneDX from Cargo.lock, in target/sbom.cdx.json
sbom: (tool 'cargo-cyclonedx' '0.5.9')
    #!/usr/bin/env bash
    set -euo pipefail
    export SOURCE_DATE_EPOCH=$(git log -1 --format=%ct 2>/dev/null || echo 0)
    # It writes beside Cargo.toml and nowhere else.
    trap 'rm -f sbom.json' EXIT
    {{ tools }}/cargo-cyclonedx cyclonedx --quiet --format json --spec-version 1.5 --target {{ triple }} --override-filename sbom
    mkdir -p target
    mv sbom.json target/sbom.cdx.json
    cargo tree --locked --target {{ triple }} --edges normal --prefix none --format '{p}' | while read -r name _; do
        grep -q "\"name\": \"$name\"" target/sbom.cdx.json || { echo "sbom: lacks $name" >&2; exit 1; }
    done
    echo 'sbom: target/sbom.cdx.json'

# Check the crates' licenses, sources and known advisories; ends with 75 when the database of advisories is out of reach
deny: (tool 'cargo-deny' '0.20.2')
    #!/usr/bin/env bash
    set -euo pipefail
    deny() { {{ tools }}/cargo-deny --locked --config .ci/deny.toml "$@"; }
    deny check licenses bans sources
    if ! timeout 120 {{ tools }}/cargo-deny --locked --config .ci/deny.toml fetch db; then
        echo 'deny: the database of advisories cannot be fetched, ADVISORIES WERE NOT CHECKED' >&2
        exit 75
    fi
    deny check --disable-fetch advisories

# A tool of crates.io, in target/tools; optimized for being there soon
[private]
tool name version:
    @{{ tools }}/{{ name }} {{ trim_start_match(name, 'cargo-') }} --version 2>/dev/null | grep -qw {{ version }} \
        || cargo install --quiet --locked --debug --root {{ tools }}/.. --target-dir {{ target_dir / 'tools-build' }} {{ name }}@{{ version }}

# Rewrite the golden wire files from what the code does now; review the diff
golden:
    UPDATE_GOLDEN=1 cargo test --locked --bin thoughtmesh-runtime wire::

# Remove everything that was built
clean:
    cargo clean
