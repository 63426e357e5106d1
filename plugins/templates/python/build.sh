#!/bin/sh
# Builds pluginName.wasm, with componentize-py 0.25.1. `./build.sh test` runs the tests.
set -eu
cd "$(dirname "$0")"

world="--quiet --wit-path wit --world this-plugin"
case "${1:-build}" in
build)
    rm -f pluginName.wasm
    componentize-py $world componentize plugin_name --output pluginName.wasm
    ;;
test)
    # The tests import what a build makes up by itself.
    rm -rf bindings
    componentize-py $world bindings bindings
    PYTHONPATH=bindings python3 -m unittest
    ;;
*)
    echo "usage: ./build.sh [build|test]" >&2
    exit 2
    ;;
esac
