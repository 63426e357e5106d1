#!/bin/sh
# Builds pluginName.wasm, with Go 1.27.3 and wasm-tools 1.262. `./build.sh test` runs the tests, `./build.sh bindings`
# makes weir/bindings/ anew after a change of wit/ (cargo install wit-bindgen-cli@0.63.0).
set -eu
cd "$(dirname "$0")"

case "${1:-build}" in
build)
    mkdir -p target
    rm -f pluginName.wasm
    GOOS=wasip1 GOARCH=wasm go build -buildmode=c-shared -ldflags="-checklinkname=0 -s -w" -o target/core.wasm .
    wasm-tools component embed --world go-runtime wit weir/wasi.wat -o target/wasi.wasm
    wasm-tools component embed --world middleware-plugin wit target/core.wasm -o target/embedded.wasm
    wasm-tools component new --adapt wasi_snapshot_preview1=target/wasi.wasm target/embedded.wasm -o pluginName.wasm
    ;;
test)
    go vet .
    go test .
    ;;
bindings)
    wit-bindgen go --world middleware-plugin --pkg-name weir/bindings --out-dir weir/bindings wit
    ;;
*)
    echo "usage: ./build.sh [build|test|bindings]" >&2
    exit 2
    ;;
esac
