# What CI runs, in its order.
check:
    bash .ci/run

# Every test.
test:
    tests/run

# The quick start, or whatever follows: just run --configFile=traefik.yaml
run *arguments:
    cargo run --release -- {{arguments}}

# Rewrites the golden files. Read the difference before you commit it.
golden:
    UPDATE=1 cargo test --release --package weir

format:
    cargo fmt --all
