// Package weir is what a plugin in Go is written with: fill in a Plugin and hand it to Export. The packages below
// bindings/ are generated from wit/, and offer what is not here: logs, shared state, requests of one's own.
package weir

import (
	"weir/bindings/imports/weir_plugin_middleware"
	"weir/bindings/imports/weir_plugin_types"

	witTypes "go.bytecodealliance.org/pkg/wit/types"
)

// Plugin says what the plugin is, and makes a Middleware of a configuration.
type Plugin struct {
	// Name as configuration files have it.
	Name    string
	Version string
	// Summary is one sentence.
	Summary string
	// Schema of the configuration, in JSON.
	Schema string
	// Init gets the configuration as JSON, checked against the schema. Its error disables the middleware: lower case, no
	// full stop, and what to write instead; it reads after "failed to".
	Init func(config []byte) (Middleware, error)
}

// Middleware is one configured middleware. The host makes several, and calls each for one request at a time.
type Middleware interface {
	Plan() Plan
	// OnRequest is called if the plan asks for it.
	OnRequest(head RequestHead) Answer
	// OnResponse is called if the plan asks for it, with what OnRequest told to remember.
	OnResponse(state []byte, head ResponseHead) ResponseEdit
}

type (
	Plan         = weir_plugin_middleware.Plan
	RequestHead  = weir_plugin_types.RequestHead
	ResponseHead = weir_plugin_types.ResponseHead
)

// NewPlan asks for OnRequest, with these headers at hand in head.Headers, in that order.
func NewPlan(requestHeaders ...string) Plan {
	return Plan{
		Phases:         weir_plugin_middleware.Phases_Request,
		RequestHeaders: requestHeaders,
		RequestBody:    weir_plugin_middleware.MakeBodyModeNone(),
		ResponseBody:   weir_plugin_middleware.MakeBodyModeNone(),
	}
}

// WithResponses asks for OnResponse too.
func WithResponses(plan Plan, headers ...string) Plan {
	plan.Phases |= weir_plugin_middleware.Phases_Response
	plan.ResponseHeaders = headers
	return plan
}

// Header is one field line. Names are lower case.
type Header struct {
	Name, Value string
}

// Answer is what becomes of a request. Without Reply it goes on.
type Answer struct {
	// Set replaces the lines of these names.
	Set []Header
	// Remember comes back in OnResponse; at most 4 KiB.
	Remember []byte
	Reply    *Reply
}

// Reply ends the request. The host adds Date and Content-Length.
type Reply struct {
	Status  uint16
	Headers []Header
	Body    []byte
}

// ResponseEdit is what becomes of a response.
type ResponseEdit struct {
	// Append adds lines after those there are.
	Append []Header
}

// IsHeaderValue says whether HTTP allows it: no control characters but the tab.
func IsHeaderValue(text string) bool {
	for _, octet := range []byte(text) {
		if octet < ' ' && octet != '\t' || octet == 0x7f {
			return false
		}
	}
	return true
}

func (answer Answer) verdict() weir_plugin_middleware.RequestVerdict {
	if reply := answer.Reply; reply != nil {
		lines := make([]witTypes.Tuple2[string, []uint8], len(reply.Headers))
		for i, header := range reply.Headers {
			lines[i] = header.line()
		}
		whole := weir_plugin_types.Reply{Status: reply.Status, Headers: lines, Body: reply.Body}
		return weir_plugin_middleware.MakeRequestVerdictReply(whole)
	}
	if len(answer.Set) == 0 {
		return weir_plugin_middleware.MakeRequestVerdictPass()
	}
	edits := make([]weir_plugin_types.HeaderEdit, len(answer.Set))
	for i, header := range answer.Set {
		edits[i] = weir_plugin_types.MakeHeaderEditSet(header.line())
	}
	return weir_plugin_middleware.MakeRequestVerdictEdit(weir_plugin_types.RequestEdit{
		Method:        witTypes.None[string](),
		Authority:     witTypes.None[string](),
		PathWithQuery: witTypes.None[string](),
		Headers:       edits,
		Body:          witTypes.None[[]uint8](),
		Filter:        witTypes.None[[]uint8](),
	})
}

func (edit ResponseEdit) verdict() weir_plugin_middleware.ResponseVerdict {
	if len(edit.Append) == 0 {
		return weir_plugin_middleware.MakeResponseVerdictPass()
	}
	edits := make([]weir_plugin_types.HeaderEdit, len(edit.Append))
	for i, header := range edit.Append {
		edits[i] = weir_plugin_types.MakeHeaderEditAppend(header.line())
	}
	return weir_plugin_middleware.MakeResponseVerdictEdit(weir_plugin_types.ResponseEdit{
		Status:  witTypes.None[uint16](),
		Headers: edits,
		Body:    witTypes.None[[]uint8](),
		Filter:  witTypes.None[[]uint8](),
	})
}

func (header Header) line() witTypes.Tuple2[string, []uint8] {
	return witTypes.Tuple2[string, []uint8]{F0: header.Name, F1: []byte(header.Value)}
}
