// Package export_weir_plugin_middleware hands calls of the host on to the plugin.
package export_weir_plugin_middleware

import (
	"weir/bindings/imports/weir_plugin_middleware"
	"weir/bindings/imports/weir_plugin_types"

	witTypes "go.bytecodealliance.org/pkg/wit/types"
)

// Set by weir.Export.
var (
	Init       func(config string) witTypes.Result[weir_plugin_middleware.Plan, weir_plugin_types.Error]
	OnRequest  func(head weir_plugin_types.RequestHead) (weir_plugin_middleware.RequestVerdict, []uint8)
	OnResponse func(state []uint8, head weir_plugin_types.ResponseHead) weir_plugin_middleware.ResponseVerdict
)
