// Splits clients into variants by weight, and keeps each at its own by a cookie. What the server sees is a header.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"weir"
)

const schema = `{
  "type": "object",
  "properties": {
    "variants": {
      "type": "array",
      "description": "two or more",
      "items": {
        "type": "object",
        "properties": {
          "name": {"type": "string", "description": "letters, digits, - and _"},
          "weight": {"type": "integer", "minimum": 0, "default": 1, "description": "0 gets no new clients"}
        },
        "required": ["name"],
        "additionalProperties": false
      }
    },
    "cookie": {"type": "string", "default": "variant"},
    "header": {"type": "string", "default": "x-variant", "description": "that the server sees"},
    "maxAge": {"type": "integer", "minimum": 0, "default": 2592000, "description": "seconds that the cookie lasts"},
    "countsPath": {"type": "string", "description": "answers how many clients each variant was given"}
  },
  "required": ["variants"],
  "additionalProperties": false
}`

const weightAtMost = 1_000_000

func init() {
	weir.Export(weir.Plugin{
		Name:    "abSplit",
		Version: "0.1.0",
		Summary: "Splits clients into variants by a cookie",
		Schema:  schema,
		Init:    func(config []byte) (weir.Middleware, error) { return configure(config, proxy{}) },
	})
}

func main() {}

// host is what the middleware asks of the proxy.
type host interface {
	// Cookies are the lines of that header.
	cookies() [][]byte
	// Add adds to a counter that all instances of this middleware share.
	add(counter string, by int64) (int64, error)
	warn(text string)
}

type variant struct {
	Name   string `json:"name"`
	Weight *int64 `json:"weight"`
}

type options struct {
	Variants   []variant `json:"variants"`
	Cookie     string    `json:"cookie"`
	Header     string    `json:"header"`
	MaxAge     int64     `json:"maxAge"`
	CountsPath string    `json:"countsPath"`
}

type split struct {
	options
	host  host
	total int64
}

func configure(config []byte, host host) (*split, error) {
	made := split{options: options{Cookie: "variant", Header: "x-variant", MaxAge: 30 * 24 * 3600}, host: host}
	if err := json.Unmarshal(config, &made.options); err != nil {
		return nil, fmt.Errorf("read the options: %w", err)
	}
	made.Header = strings.ToLower(made.Header)
	for what, name := range map[string]string{"cookie": made.Cookie, "header": made.Header} {
		if !isName(name) {
			return nil, fmt.Errorf("use `%s` as `%s`: it has letters, digits, `-` and `_`", name, what)
		}
	}
	if len(made.Variants) < 2 {
		return nil, errors.New("split into less than two `variants`")
	}
	seen := map[string]bool{}
	for _, variant := range made.Variants {
		if !isName(variant.Name) || seen[variant.Name] {
			return nil, fmt.Errorf("use `%s` as the name of a variant: it has letters, digits, `-` and `_`, and is there once", variant.Name)
		}
		seen[variant.Name] = true
		if variant.weight() < 0 || variant.weight() > weightAtMost {
			return nil, fmt.Errorf("use %d as the weight of `%s`: it is at most %d", variant.weight(), variant.Name, weightAtMost)
		}
		made.total += variant.weight()
	}
	if made.total == 0 {
		return nil, errors.New("split by weights that are all 0")
	}
	return &made, nil
}

func (s *split) Plan() weir.Plan { return weir.WithResponses(weir.NewPlan()) }

func (s *split) OnRequest(head weir.RequestHead) weir.Answer {
	if path, _, _ := strings.Cut(head.PathWithQuery, "?"); s.CountsPath != "" && path == s.CountsPath {
		return weir.Answer{Reply: s.counts()}
	}
	if name, found := s.known(); found {
		return weir.Answer{Set: []weir.Header{{Name: s.Header, Value: name}}}
	}
	name := s.choose()
	return weir.Answer{Set: []weir.Header{{Name: s.Header, Value: name}}, Remember: []byte(name)}
}

// OnResponse gives new clients their cookie.
func (s *split) OnResponse(state []byte, _ weir.ResponseHead) weir.ResponseEdit {
	if len(state) == 0 {
		return weir.ResponseEdit{}
	}
	cookie := fmt.Sprintf("%s=%s; Path=/; Max-Age=%d; SameSite=Lax", s.Cookie, state, s.MaxAge)
	return weir.ResponseEdit{Append: []weir.Header{{Name: "set-cookie", Value: cookie}}}
}

// The variant of the request's cookie, if there is such a variant.
func (s *split) known() (string, bool) {
	for _, line := range s.host.cookies() {
		for pair := range strings.SplitSeq(string(line), ";") {
			name, value, _ := strings.Cut(strings.TrimSpace(pair), "=")
			if name != s.Cookie {
				continue
			}
			for _, variant := range s.Variants {
				if variant.Name == value {
					return variant.Name, true
				}
			}
		}
	}
	return "", false
}

// Clients take turns: of each `total` that come, on whatever worker, each variant gets as many as its weight says.
func (s *split) choose() string {
	turn, err := s.host.add("turn", 1)
	if err != nil {
		s.host.warn("no turn could be had, and so the first variant is taken: " + err.Error())
		return s.Variants[0].Name
	}
	left := (turn%s.total + s.total) % s.total
	for _, variant := range s.Variants {
		if left < variant.weight() {
			if _, err := s.host.add("given."+variant.Name, 1); err != nil {
				s.host.warn("a client is not counted: " + err.Error())
			}
			return variant.Name
		}
		left -= variant.weight()
	}
	return s.Variants[0].Name
}

func (s *split) counts() *weir.Reply {
	counts := map[string]int64{}
	for _, variant := range s.Variants {
		count, err := s.host.add("given."+variant.Name, 0)
		if err != nil {
			return &weir.Reply{Status: 503, Body: []byte(err.Error())}
		}
		counts[variant.Name] = count
	}
	body, _ := json.Marshal(counts)
	return &weir.Reply{Status: 200, Headers: []weir.Header{{Name: "content-type", Value: "application/json"}}, Body: body}
}

func (v variant) weight() int64 {
	if v.Weight == nil {
		return 1
	}
	return *v.Weight
}

func isName(text string) bool {
	other := func(r rune) bool {
		letter := r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9'
		return !letter && r != '-' && r != '_'
	}
	return text != "" && len(text) <= 100 && !strings.ContainsFunc(text, other)
}
