// Runs natively, without the proxy.

#include <assert.h>
#include <stdio.h>

#include "weir_plugin.h"

static exports_weir_plugin_middleware_plan_t plan;
static exports_weir_plugin_middleware_error_t error;

static bool init(const char *config) {
  weir_string_t json = weir_text(config);
  return exports_weir_plugin_middleware_init(&json, &plan, &error);
}

static void puts_the_text_into_the_header(void) {
  assert(init("{\"text\": \"say \\\"gr\\u00fcezi\\\"\"}"));
  exports_weir_plugin_middleware_request_head_t head = {0};
  weir_answer_t answer;
  exports_weir_plugin_middleware_on_request(&head, &answer);
  weir_plugin_types_header_t header = answer.f0.val.edit.headers.ptr[0].val.set;
  assert(weir_same(header.f0, weir_text("x-plugin-name")));
  assert(weir_same((weir_string_t){header.f1.ptr, header.f1.len}, weir_text("say \"grüezi\"")));
}

static void refuses_a_text_that_is_no_header(void) {
  assert(!init("{\"text\": \"a\\nb\"}"));
  assert(error.kind == WEIR_PLUGIN_TYPES_ERROR_KIND_INVALID_CONFIG);
}

int main(void) {
  puts_the_text_into_the_header();
  refuses_a_text_that_is_no_header();
  puts("2 passed, 0 failed");
}
