package weir

import (
	"fmt"

	"weir/bindings/exports/export_weir_plugin_description"
	"weir/bindings/exports/export_weir_plugin_middleware"
	_ "weir/bindings/exports/wit_exports"
	"weir/bindings/imports/weir_plugin_description"
	"weir/bindings/imports/weir_plugin_log"
	"weir/bindings/imports/weir_plugin_middleware"
	"weir/bindings/imports/weir_plugin_types"

	witTypes "go.bytecodealliance.org/pkg/wit/types"
)

// Export makes the module a component with this plugin. Called once, by the init function of package main.
func Export(plugin Plugin) {
	var middleware Middleware
	export_weir_plugin_description.Describe = func() weir_plugin_description.About {
		return weir_plugin_description.About{
			Name:         plugin.Name,
			Version:      plugin.Version,
			Summary:      plugin.Summary,
			ConfigSchema: plugin.Schema,
		}
	}
	export_weir_plugin_middleware.Init = func(config string) witTypes.Result[Plan, weir_plugin_types.Error] {
		defer sayPanic()
		made, err := plugin.Init([]byte(config))
		if err != nil {
			return witTypes.Err[Plan](weir_plugin_types.Error{
				Kind:         weir_plugin_types.ErrorKind_InvalidConfig,
				Message:      err.Error(),
				RetryAfterMs: witTypes.None[uint64](),
			})
		}
		middleware = made
		return witTypes.Ok[Plan, weir_plugin_types.Error](made.Plan())
	}
	export_weir_plugin_middleware.OnRequest = func(head RequestHead) (weir_plugin_middleware.RequestVerdict, []uint8) {
		defer sayPanic()
		answer := middleware.OnRequest(head)
		return answer.verdict(), answer.Remember
	}
	export_weir_plugin_middleware.OnResponse = func(state []uint8, head ResponseHead) weir_plugin_middleware.ResponseVerdict {
		defer sayPanic()
		return middleware.OnResponse(state, head).verdict()
	}
}

// What Go writes to standard error is seen by nobody. The panic goes on, and ends the instance.
func sayPanic() {
	if reason := recover(); reason != nil {
		weir_plugin_log.Write(weir_plugin_log.Level_Error, fmt.Sprint("panic: ", reason), nil)
		panic(reason)
	}
}
