// Runs natively, without the proxy.

#include <assert.h>
#include <stdio.h>
#include <string.h>

#include "weir_plugin.h"

static exports_weir_plugin_middleware_plan_t plan;
static exports_weir_plugin_middleware_error_t error;

static bool init(const char *config) {
  weir_string_t json = weir_text(config);
  return exports_weir_plugin_middleware_init(&json, &plan, &error);
}

static bool is_filtered(const char *type, const char *encoding) {
  weir_plugin_types_option_header_value_t headers[2] = {0};
  const char *values[] = {type, encoding};
  for (size_t i = 0; i < 2; i++) {
    if (values[i]) headers[i] = (weir_plugin_types_option_header_value_t){true, {(uint8_t *)values[i], strlen(values[i])}};
  }
  exports_weir_plugin_middleware_response_head_t head = {.status = 200, .headers = {headers, 2}};
  weir_list_u8_t state = {0};
  exports_weir_plugin_middleware_response_verdict_t verdict;
  exports_weir_plugin_middleware_on_response(&state, &head, &verdict);
  return verdict.tag == EXPORTS_WEIR_PLUGIN_MIDDLEWARE_RESPONSE_VERDICT_EDIT && verdict.val.edit.filter.is_some;
}

// There is no host here: a test defines what the plugin imports.
static exports_weir_plugin_body_filter_filter_t *begun;

exports_weir_plugin_body_filter_own_filter_t
exports_weir_plugin_body_filter_filter_new(exports_weir_plugin_body_filter_filter_t *filter) {
  begun = filter;
  return (exports_weir_plugin_body_filter_own_filter_t){1};
}

// What goes on of a text that comes in pieces of that size.
static const char *filtered(const char *text, size_t piece) {
  static char all[200];
  size_t length = 0;
  weir_list_u8_t none = {0}, answer;
  exports_weir_plugin_body_filter_constructor_filter(EXPORTS_WEIR_PLUGIN_BODY_FILTER_DIRECTION_RESPONSE, &none);
  for (size_t at = 0; at < strlen(text); at += piece) {
    size_t left = strlen(text) - at;
    weir_list_u8_t bytes = {(uint8_t *)text + at, left < piece ? left : piece};
    assert(exports_weir_plugin_body_filter_method_filter_chunk(begun, &bytes, &answer, &error));
    memcpy(all + length, answer.ptr, answer.len);
    length += answer.len;
  }
  exports_weir_plugin_body_filter_list_header_t trailers = {0};
  exports_weir_plugin_body_filter_tuple2_list_u8_list_header_t last;
  assert(exports_weir_plugin_body_filter_method_filter_end(begun, &trailers, &last, &error));
  memcpy(all + length, last.f0.ptr, last.f0.len);
  all[length + last.f0.len] = 0;
  return all;
}

static void words_are_masked_wherever_pieces_end(void) {
  assert(init("{\"words\": [\"secret\", \"key\"]}"));
  for (size_t piece = 1; piece < 30; piece++) {
    assert(strcmp(filtered("a secret, a key, and secre", piece), "a ******, a ***, and secre") == 0);
  }
  assert(strcmp(filtered("", 1), "") == 0);
  assert(init("{\"words\": [\"x\"]}"));
  assert(strcmp(filtered("axb", 2), "a*b") == 0);
}

static void text_alone_is_filtered(void) {
  assert(init("{\"words\": [\"secret\"]}"));
  assert(is_filtered("text/html; charset=utf-8", NULL));
  assert(!is_filtered("image/png", NULL));
  assert(!is_filtered("text/html", "gzip"));
  assert(!is_filtered(NULL, NULL));
}

static void words_that_cannot_be_used_are_refused(void) {
  assert(!init("{\"words\": []}"));
  assert(!init("{\"words\": [\"\"]}"));
  assert(error.kind == WEIR_PLUGIN_TYPES_ERROR_KIND_INVALID_CONFIG);
}

int main(void) {
  words_are_masked_wherever_pieces_end();
  text_alone_is_filtered();
  words_that_cannot_be_used_are_refused();
  puts("3 passed, 0 failed");
}
