#!/bin/sh
# Builds maintenance.wasm, as the template of plugins in Python does; what it shares with that is there. `./build.sh test`
# runs the tests.
set -eu
cd "$(dirname "$0")"

# The interface and the world of this plugin are one package, and so in one folder.
mkdir -p target/wit target/python
cp ../../../../wit/weir-plugin.wit wit/world.wit target/wit
cp ../../../templates/python/weir.py target/python
world="--quiet --wit-path target/wit --world this-plugin"
case "${1:-build}" in
build)
    componentize-py $world componentize maintenance --python-path . --python-path target/python --output maintenance.wasm
    ;;
test)
    rm -rf bindings
    componentize-py $world bindings bindings
    PYTHONPATH=bindings:target/python python3 -m unittest
    ;;
*)
    echo "usage: ./build.sh [build|test]" >&2
    exit 2
    ;;
esac
