// What makes a plugin in C short: memory that needs no `free`, text, the options, and edits. See weir.h in bindings/, which
// is generated, for all there is.
#pragma once

#include "weir.h"

// Memory for the time of one call, zeroed. What `init` takes stays as long as the instance; what a filter keeps from one
// piece to the next belongs into static variables, for an instance has one filter at a time.
void *weir_take(size_t size);

// Text that is there anyway, or was taken.
weir_string_t weir_text(const char *text);
bool weir_same(weir_string_t a, weir_string_t b);
// Whether `part`, in lower case, is in `text`, in any case. Bytes that are no ASCII are compared as they are.
bool weir_contains(const uint8_t *text, size_t length, weir_string_t part);
// Whether HTTP allows it as the value of a header: no control characters but the tab.
bool weir_is_header_value(weir_string_t text);

// The options: JSON that the host has checked against the schema. A member that is missing is `null`.
typedef struct {
  const uint8_t *at, *end;
} json_t;

json_t json_of(weir_string_t config);
json_t json_member(json_t object, const char *name);
bool json_is_null(json_t value);
bool json_is_true(json_t value);
weir_string_t json_text(json_t value);
size_t json_count(json_t array);
// The texts of an array, `json_count` of them.
weir_string_t *json_texts(json_t array);

// A plan that asks for `on-request`, with these headers at hand in `head->headers`, in that order.
exports_weir_plugin_middleware_plan_t weir_plan(weir_string_t *request_headers, size_t count);
// The error of an `init`: lower case, no full stop, and what to write instead; it reads after "failed to".
exports_weir_plugin_middleware_error_t weir_invalid_config(const char *message);

typedef exports_weir_plugin_middleware_tuple2_request_verdict_list_u8_t weir_answer_t;

weir_answer_t weir_pass(void);
// The request goes on with this header, whose name is lower case.
weir_answer_t weir_set_header(weir_string_t name, weir_string_t value);
// The request ends here, with this text.
weir_answer_t weir_reply(uint16_t status, const char *text);
