//go:build !wasip1

package main

// Tests have a host of their own.
type proxy struct{ host }
