package main

import (
	"errors"
	"strings"
	"testing"

	"weir"
)

// What takes the place of the proxy.
type fake struct {
	lines    [][]byte
	counters map[string]int64
	broken   bool
	warned   string
}

func (f *fake) cookies() [][]byte { return f.lines }

func (f *fake) add(counter string, by int64) (int64, error) {
	if f.broken {
		return 0, errors.New("no room")
	}
	f.counters[counter] += by
	return f.counters[counter], nil
}

func (f *fake) warn(text string) { f.warned = text }

func made(t *testing.T, config string) (*split, *fake) {
	t.Helper()
	host := &fake{counters: map[string]int64{}}
	middleware, err := configure([]byte(config), host)
	if err != nil {
		t.Fatal(err)
	}
	return middleware, host
}

const threeToOne = `{"variants": [{"name": "old", "weight": 3}, {"name": "new"}], "countsPath": "/counts"}`

func TestNewClientsAreSplitByWeightExactly(t *testing.T) {
	middleware, host := made(t, threeToOne)
	for range 400 {
		middleware.OnRequest(weir.RequestHead{PathWithQuery: "/"})
	}
	if host.counters["given.old"] != 300 || host.counters["given.new"] != 100 {
		t.Error(host.counters)
	}
}

func TestANewClientGetsACookie(t *testing.T) {
	middleware, _ := made(t, threeToOne)
	answer := middleware.OnRequest(weir.RequestHead{PathWithQuery: "/"})
	if answer.Set[0].Name != "x-variant" || answer.Set[0].Value != string(answer.Remember) {
		t.Error(answer)
	}
	edit := middleware.OnResponse(answer.Remember, weir.ResponseHead{Status: 200})
	expected := "variant=" + string(answer.Remember) + "; Path=/; Max-Age=2592000; SameSite=Lax"
	if len(edit.Append) != 1 || edit.Append[0] != (weir.Header{Name: "set-cookie", Value: expected}) {
		t.Error(edit)
	}
}

func TestAKnownClientStaysWhereItIs(t *testing.T) {
	for _, line := range []string{"variant=new", "a=b;  variant=new ; c=d", "variant=gone; variant=new", "=; ;x; variant=new"} {
		middleware, host := made(t, threeToOne)
		host.lines = [][]byte{[]byte("\xff\xfe=\x80"), []byte(line)}
		answer := middleware.OnRequest(weir.RequestHead{PathWithQuery: "/"})
		if answer.Set[0].Value != "new" || answer.Remember != nil || len(host.counters) != 0 {
			t.Errorf("%s: %v", line, answer)
		}
		if edit := middleware.OnResponse(nil, weir.ResponseHead{}); edit.Append != nil {
			t.Errorf("%s: %v", line, edit)
		}
	}
}

func TestACookieThatNamesNoVariantIsNoNews(t *testing.T) {
	middleware, host := made(t, threeToOne)
	host.lines = [][]byte{[]byte("variant=evil\r\nx: y; xvariant=new; variant")}
	if answer := middleware.OnRequest(weir.RequestHead{PathWithQuery: "/"}); answer.Remember == nil {
		t.Error(answer)
	}
}

func TestAVariantOfWeightZeroGetsNoNewClients(t *testing.T) {
	middleware, host := made(t, `{"variants": [{"name": "a", "weight": 0}, {"name": "b"}]}`)
	for range 10 {
		middleware.OnRequest(weir.RequestHead{})
	}
	if host.counters["given.b"] != 10 {
		t.Error(host.counters)
	}
}

func TestTheCountsCanBeAskedFor(t *testing.T) {
	middleware, _ := made(t, threeToOne)
	middleware.OnRequest(weir.RequestHead{PathWithQuery: "/"})
	reply := middleware.OnRequest(weir.RequestHead{PathWithQuery: "/counts?x"}).Reply
	if reply == nil || string(reply.Body) != `{"new":0,"old":1}` {
		t.Error(reply)
	}
}

func TestWithoutSharedStateClientsAreServed(t *testing.T) {
	middleware, host := made(t, threeToOne)
	host.broken = true
	if answer := middleware.OnRequest(weir.RequestHead{}); answer.Set[0].Value != "old" || host.warned == "" {
		t.Error(answer)
	}
}

func TestOptionsThatCannotBeUsedAreRefused(t *testing.T) {
	for config, said := range map[string]string{
		`{"variants": [{"name": "a"}]}`:                                          "two",
		`{"variants": [{"name": "a"}, {"name": "a"}]}`:                           "`a`",
		`{"variants": [{"name": "a b"}, {"name": "c"}]}`:                         "`a b`",
		`{"variants": [{"name": "a", "weight": 0}, {"name": "b", "weight": 0}]}`: "all 0",
		`{"variants": [{"name": "a"}, {"name": "b", "weight": 9000000}]}`:        "9000000",
		`{"variants": [{"name": "a"}, {"name": "b"}], "cookie": "a=b"}`:          "`a=b`",
		`{"variants": [{"name": "a"}, {"name": "b"}], "header": "x\r\ny"}`:       "header",
	} {
		if _, err := configure([]byte(config), nil); err == nil || !strings.Contains(err.Error(), said) {
			t.Errorf("%s: %v", config, err)
		}
	}
}
