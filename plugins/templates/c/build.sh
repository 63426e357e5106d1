#!/bin/sh
# Builds pluginName.wasm, with zig 0.17.1 and wasm-tools 1.262. `./build.sh test` runs the tests, `./build.sh bindings`
# makes bindings/ anew after a change of wit/ (cargo install wit-bindgen-cli@0.63.0).
set -eu
cd "$(dirname "$0")"

# `body-plugin` for a plugin that filters bodies as they flow.
world=middleware-plugin
cc="python3 -m ziglang cc -std=c17 -Wall -Wextra -Wno-ignored-attributes -Ibindings/$world"
sources="plugin_name.c weir_plugin.c"
case "${1:-build}" in
build)
    mkdir -p target
    rm -f pluginName.wasm
    # The stack has 64 KiB, so that an instance starts with 128 KiB of memory and not with megabytes.
    $cc -target wasm32-wasi -mexec-model=reactor -O2 -flto -s -Wl,-z,stack-size=65536 \
        $sources bindings/$world/weir.c -o target/core.wasm
    wasm-tools component embed --world $world wit target/core.wasm -o target/embedded.wasm
    wasm-tools component new target/embedded.wasm -o pluginName.wasm
    ;;
test)
    mkdir -p target
    $cc -g -fsanitize=undefined -fsanitize-trap=undefined $sources plugin_name_test.c -o target/tests
    target/tests
    ;;
bindings)
    for world in middleware-plugin body-plugin; do
        wit-bindgen c --world $world --rename-world weir --no-object-file --out-dir bindings/$world wit
    done
    ;;
*)
    echo "usage: ./build.sh [build|test|bindings]" >&2
    exit 2
    ;;
esac
