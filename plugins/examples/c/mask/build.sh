#!/bin/sh
# Builds mask.wasm, as the template of plugins in C does for the world `body-plugin`. `./build.sh test` runs the
# tests.
set -eu
cd "$(dirname "$0")"

template=../../../templates/c
cc="python3 -m ziglang cc -std=c17 -Wall -Wextra -Wno-ignored-attributes -I$template -I$template/bindings/body-plugin"
sources="mask.c $template/weir_plugin.c"
mkdir -p target
case "${1:-build}" in
build)
    $cc -target wasm32-wasi -mexec-model=reactor -O2 -flto -s -Wl,-z,stack-size=65536 \
        $sources $template/bindings/body-plugin/weir.c -o target/core.wasm
    wasm-tools component embed --world body-plugin ../../../../wit target/core.wasm -o target/embedded.wasm
    wasm-tools component new target/embedded.wasm -o mask.wasm
    ;;
test)
    $cc -g -fsanitize=undefined -fsanitize-trap=undefined $sources mask_test.c -o target/tests
    target/tests
    ;;
*)
    echo "usage: ./build.sh [build|test]" >&2
    exit 2
    ;;
esac
