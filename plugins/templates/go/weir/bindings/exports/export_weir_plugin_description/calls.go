// Package export_weir_plugin_description hands calls of the host on to the plugin.
package export_weir_plugin_description

import "weir/bindings/imports/weir_plugin_description"

// Describe is set by weir.Export.
var Describe func() weir_plugin_description.About
