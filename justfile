# What a person changing the code runs. `just` alone lists it.

target_dir := env('CARGO_TARGET_DIR', 'target')
triple := arch() + '-unknown-linux-musl'
executable := target_dir / triple / 'release' / 'thoughtmesh-runtime'

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
    kept='PATH|HOME|RUST_LOG|SSL_CERT_(FILE|DIR)|((HTTPS?|ALL|NO)_PROXY|(https?|all|no)_proxy)'
    kept+='|(THOUGHTMESH|OPENAI|AZURE|ANTHROPIC|GOOGLE|GEMINI|GCE|MISTRAL|OLLAMA)_.*'
    for name in $(compgen -e); do
        [[ "$name" =~ ^($kept)$ ]] || unset "$name"
    done
    export THOUGHTMESH_OBJECTIVE='Analyze the repository and create a performance optimization report'
    export THOUGHTMESH_KEY_RESULTS='["Identify top 5 bottlenecks", "Suggest concrete improvements", "Estimate performance gains"]'
    export THOUGHTMESH_TOOLS='[{"name": "filesystem"}]'
    export THOUGHTMESH_WORKSPACE='{{ justfile_directory() }}'
    exec env -u _ -u SHLVL {{ quote(target_dir / 'debug' / 'thoughtmesh-runtime') }}

# Run all tests
test:
    cargo test --locked

# Measure: lines per second of the analyzer, memory of a tool that prints much, start with MCP servers
bench:
    cargo bench --locked --bench bench
    cargo bench --locked --bench mcp

# Measure: tokens sent over 500 turns in windows of several sizes, and how much of each request stayed identical
bench-context:
    cargo bench --locked --bench context

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
    cargo build --release --locked --target {{ triple }}
    @! command -v file >/dev/null || file {{ quote(executable) }}
    @echo {{ quote(executable) }}: $(wc -c <{{ quote(executable) }}) bytes

# Build the image with podman, docker or buildah; options go to its `build`, such as --platform linux/arm64
image *options:
    #!/usr/bin/env bash
    set -euo pipefail
    version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml)
    revision=$(git describe --always --abbrev=40 --dirty 2>/dev/null || echo unknown)
    for tool in podman docker buildah; do
        if "$tool" info &>/dev/null; then
            exec "$tool" build --file Containerfile --tag "thoughtmesh-runtime:$version" \
                --build-arg VERSION="$version" --build-arg REVISION="$revision" {{ options }} .
        fi
    done
    echo 'image: neither podman nor docker nor buildah works here, install one of them' >&2
    exit 1

# Rewrite the golden wire files from what the code does now; review the diff
golden:
    UPDATE_GOLDEN=1 cargo test --locked --bin thoughtmesh-runtime wire::

# Remove everything that was built
clean:
    cargo clean
