// Puts a header of its own on every request: x-plugin-name, with the text of the configuration.
package main

import (
	"encoding/json"
	"errors"

	"weir"
)

const schema = `{
  "type": "object",
  "properties": {"text": {"type": "string", "description": "what the header says"}},
  "required": ["text"],
  "additionalProperties": false
}`

func init() {
	weir.Export(weir.Plugin{
		Name:    "pluginName",
		Version: "0.1.0",
		Summary: "Puts a header on every request",
		Schema:  schema,
		Init:    configure,
	})
}

func main() {}

type middleware struct {
	text string
}

func configure(config []byte) (weir.Middleware, error) {
	var options struct {
		Text string `json:"text"`
	}
	if err := json.Unmarshal(config, &options); err != nil {
		return nil, err
	}
	if !weir.IsHeaderValue(options.Text) {
		return nil, errors.New("use `text` as a header: it has a line break or control character")
	}
	return middleware{text: options.Text}, nil
}

func (m middleware) Plan() weir.Plan { return weir.NewPlan() }

func (m middleware) OnRequest(weir.RequestHead) weir.Answer {
	return weir.Answer{Set: []weir.Header{{Name: "x-plugin-name", Value: m.text}}}
}

// OnResponse is not called: the plan does not ask for it.
func (m middleware) OnResponse([]byte, weir.ResponseHead) weir.ResponseEdit {
	return weir.ResponseEdit{}
}
