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

// The verdict on a request with these headers, in the order of the plan; null is a header that is not there.
static weir_answer_t judge(const char *user_agent, const char *accept) {
  const char *values[] = {user_agent, accept};
  weir_plugin_types_option_header_value_t headers[2] = {0};
  for (size_t i = 0; i < plan.request_headers.len; i++) {
    if (!values[i]) continue;
    weir_string_t value = weir_text(values[i]);
    headers[i] = (weir_plugin_types_option_header_value_t){true, {value.ptr, value.len}};
  }
  exports_weir_plugin_middleware_request_head_t head = {.headers = {headers, plan.request_headers.len}};
  weir_answer_t answer;
  exports_weir_plugin_middleware_on_request(&head, &answer);
  return answer;
}

static bool denied(const char *user_agent, const char *accept) {
  weir_answer_t answer = judge(user_agent, accept);
  return answer.f0.tag == EXPORTS_WEIR_PLUGIN_MIDDLEWARE_REQUEST_VERDICT_REPLY && answer.f0.val.reply.status == 403;
}

static void user_agents_are_found_in_any_case(void) {
  assert(init("{\"userAgents\": [\"CURL\", \"bot\"], \"except\": [\"GoodBot\"]}"));
  assert(denied("curl/8.0", NULL));
  assert(denied("Some-BOT/1.0", NULL));
  assert(!denied("goodbot/1.0", NULL));
  assert(!denied("Mozilla/5.0", NULL));
  assert(denied(NULL, NULL));
  assert(!denied("", NULL));
}

static void bytes_that_are_no_text_are_compared_as_they_are(void) {
  assert(init("{\"userAgents\": [\"bot\"]}"));
  assert(denied("\xff\xfe" "Bot\x80", NULL));
  assert(!denied("\xff\xfe\x80", NULL));
}

static void missing_headers_are_a_sign(void) {
  assert(init("{\"requiredHeaders\": [\"Accept\"]}"));
  assert(weir_same(plan.request_headers.ptr[1], weir_text("accept")));
  assert(denied("Mozilla/5.0", NULL));
  assert(!denied("Mozilla/5.0", "*/*"));
  assert(!denied(NULL, "*/*"));
}

static void bots_can_be_tagged(void) {
  assert(init("{\"userAgents\": [\"bot\"], \"action\": \"tag\"}"));
  weir_answer_t answer = judge("a bot", NULL);
  assert(answer.f0.tag == EXPORTS_WEIR_PLUGIN_MIDDLEWARE_REQUEST_VERDICT_EDIT);
  assert(weir_same(answer.f0.val.edit.headers.ptr[0].val.set.f0, weir_text("x-bot")));
  assert(weir_same(plan.request_edits.ptr[0].edit.val.remove, weir_text("x-bot")));
}

static void options_that_find_no_bots_are_refused(void) {
  const char *bad[] = {"{}", "{\"userAgents\": [\"\"]}", "{\"requiredHeaders\": [\"a b\"]}", "{\"userAgents\": []}"};
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    assert(!init(bad[i]));
    assert(error.kind == WEIR_PLUGIN_TYPES_ERROR_KIND_INVALID_CONFIG && error.message.len > 0);
  }
}

static void the_reader_of_options_ends_whatever_it_reads(void) {
  const char *whole = "{\"a\": [1, {\"b\": \"]}\"}, null], \"userAgents\": [\"a\\u00e4\\ud83d\\ude00\\n\"], \"action\": \"tag\"}";
  assert(init(whole));
  for (size_t length = 0; length < strlen(whole); length++) {
    // As long as it says and no longer, so that a read behind the end is seen.
    char *part = weir_take(length);
    weir_string_t json = {(uint8_t *)memcpy(part, whole, length), length};
    exports_weir_plugin_middleware_init(&json, &plan, &error);
  }
}

int main(void) {
  user_agents_are_found_in_any_case();
  bytes_that_are_no_text_are_compared_as_they_are();
  missing_headers_are_a_sign();
  bots_can_be_tagged();
  options_that_find_no_bots_are_refused();
  the_reader_of_options_ends_whatever_it_reads();
  puts("6 passed, 0 failed");
}
