package main

import (
	"errors"

	"weir/bindings/imports/weir_plugin_log"
	"weir/bindings/imports/weir_plugin_message"
	"weir/bindings/imports/weir_plugin_shared"

	witTypes "go.bytecodealliance.org/pkg/wit/types"
)

// The proxy itself.
type proxy struct{}

func (proxy) cookies() [][]byte { return weir_plugin_message.GetAll("cookie") }

func (proxy) add(counter string, by int64) (int64, error) {
	sum := weir_plugin_shared.Increment(weir_plugin_shared.Scope_Middleware, counter, by, witTypes.None[uint64]())
	if sum.IsErr() {
		return 0, errors.New(sum.Err().Message)
	}
	return sum.Ok(), nil
}

func (proxy) warn(text string) { weir_plugin_log.Write(weir_plugin_log.Level_Warn, text, nil) }
