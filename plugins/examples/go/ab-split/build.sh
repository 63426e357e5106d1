#!/bin/sh
# Builds abSplit.wasm, as the template of plugins in Go does; what it shares with that is there. `./build.sh test` runs the
# tests.
set -eu
cd "$(dirname "$0")"

template=../../../templates/go
case "${1:-build}" in
build)
    mkdir -p target/wit
    cp ../../../../wit/weir-plugin.wit $template/wit/go-runtime.wit target/wit
    GOOS=wasip1 GOARCH=wasm go build -buildmode=c-shared -ldflags="-checklinkname=0 -s -w" -o target/core.wasm .
    wasm-tools component embed --world go-runtime target/wit $template/weir/wasi.wat -o target/wasi.wasm
    wasm-tools component embed --world middleware-plugin target/wit target/core.wasm -o target/embedded.wasm
    wasm-tools component new --adapt wasi_snapshot_preview1=target/wasi.wasm target/embedded.wasm -o abSplit.wasm
    ;;
test)
    go vet .
    go test .
    ;;
*)
    echo "usage: ./build.sh [build|test]" >&2
    exit 2
    ;;
esac
