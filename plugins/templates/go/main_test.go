package main

import (
	"reflect"
	"testing"

	"weir"
)

func TestPutsTheTextIntoTheHeader(t *testing.T) {
	middleware, err := configure([]byte(`{"text": "grüezi"}`))
	if err != nil {
		t.Fatal(err)
	}
	answer := middleware.OnRequest(weir.RequestHead{})
	if expected := []weir.Header{{Name: "x-plugin-name", Value: "grüezi"}}; !reflect.DeepEqual(answer.Set, expected) {
		t.Errorf("%v", answer.Set)
	}
}

func TestRefusesATextThatIsNoHeader(t *testing.T) {
	if _, err := configure([]byte(`{"text": "a\nb"}`)); err == nil {
		t.Error("it was taken")
	}
}
