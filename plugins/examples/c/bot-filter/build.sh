#!/bin/sh
# Builds botFilter.wasm, as the template of plugins in C does; what it shares with that is there. `./build.sh test` runs the
# tests.
set -eu
cd "$(dirname "$0")"

template=../../../templates/c
cc="python3 -m ziglang cc -std=c17 -Wall -Wextra -Wno-ignored-attributes -I$template -I$template/bindings/middleware-plugin"
sources="bot_filter.c $template/weir_plugin.c"
mkdir -p target
case "${1:-build}" in
build)
    $cc -target wasm32-wasi -mexec-model=reactor -O2 -flto -s -Wl,-z,stack-size=65536 \
        $sources $template/bindings/middleware-plugin/weir.c -o target/core.wasm
    wasm-tools component embed --world middleware-plugin ../../../../wit target/core.wasm -o target/embedded.wasm
    wasm-tools component new target/embedded.wasm -o botFilter.wasm
    ;;
test)
    $cc -g -fsanitize=undefined -fsanitize-trap=undefined $sources bot_filter_test.c -o target/tests
    target/tests
    ;;
*)
    echo "usage: ./build.sh [build|test]" >&2
    exit 2
    ;;
esac
