#!/bin/sh
# Builds maintenance.wasm, as the template of plugins in Python does; what it shares with that is there. `./build.sh test`
# runs the tests.
set -eu
cd "$(dirname "$0")"

# Nothing is left in the template.
export PYTHONDONTWRITEBYTECODE=1
template=../../../templates/python
# The interface and the world of this plugin are one package, and so in one folder.
mkdir -p target/wit
cp ../../../../wit/weir-plugin.wit wit/world.wit target/wit
world="--quiet --wit-path target/wit --world this-plugin"
case "${1:-build}" in
build)
    componentize-py $world componentize maintenance --python-path . --python-path $template --output maintenance.wasm
    ;;
test)
    rm -rf bindings
    componentize-py $world bindings bindings
    PYTHONPATH=bindings:$template python3 -m unittest
    ;;
*)
    echo "usage: ./build.sh [build|test]" >&2
    exit 2
    ;;
esac
