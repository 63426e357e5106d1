// A fast bot filter: requests are judged by their headers alone, before anything else sees them.

#include <string.h>

#include "weir_plugin.h"

static const char *schema =
    "{\"type\": \"object\", \"additionalProperties\": false, \"properties\": {"
    "\"userAgents\": {\"type\": \"array\", \"items\": {\"type\": \"string\"},"
    " \"description\": \"parts of user agents that are bots, in any case\"},"
    "\"except\": {\"type\": \"array\", \"items\": {\"type\": \"string\"},"
    " \"description\": \"parts of user agents that are welcome all the same\"},"
    "\"requiredHeaders\": {\"type\": \"array\", \"items\": {\"type\": \"string\"},"
    " \"description\": \"headers that every browser sends\"},"
    "\"action\": {\"type\": \"string\", \"enum\": [\"deny\", \"tag\"], \"default\": \"deny\","
    " \"description\": \"answer 403, or let it pass with X-Bot\"}}}";

// Bounds that no sensible list comes near to: each entry costs time in each request.
enum { ENTRIES_AT_MOST = 200, HEADERS_AT_MOST = 20 };

typedef struct {
  weir_string_t *texts;
  size_t count;
} list_t;

// The options, of this instance.
static list_t bots, welcome, required;
static bool deny;

static const char *read_options(json_t config);
static weir_answer_t judge(const exports_weir_plugin_middleware_request_head_t *head);

void exports_weir_plugin_description_describe(exports_weir_plugin_description_about_t *about) {
  *about = (exports_weir_plugin_description_about_t){
      .name = weir_text("botFilter"),
      .version = weir_text("0.1.0"),
      .summary = weir_text("Denies or tags requests of bots by their headers"),
      .config_schema = weir_text(schema),
  };
}

bool exports_weir_plugin_middleware_init(weir_string_t *config, exports_weir_plugin_middleware_plan_t *plan,
                                         exports_weir_plugin_middleware_error_t *error) {
  const char *problem = read_options(json_of(*config));
  if (problem) {
    *error = weir_invalid_config(problem);
    return false;
  }
  // The user agent comes first, then what is required.
  weir_string_t *names = weir_take((required.count + 1) * sizeof *names);
  names[0] = weir_text("user-agent");
  memcpy(names + 1, required.texts, required.count * sizeof *names);
  *plan = weir_plan(names, required.count + 1);
  // A client that says of itself that it is no bot would be believed by the server.
  exports_weir_plugin_middleware_fixed_edit_t *edit = weir_take(sizeof *edit);
  edit->edit.tag = WEIR_PLUGIN_TYPES_HEADER_EDIT_REMOVE;
  edit->edit.val.remove = weir_text("x-bot");
  plan->request_edits = (exports_weir_plugin_middleware_list_fixed_edit_t){edit, 1};
  return true;
}

void exports_weir_plugin_middleware_on_request(exports_weir_plugin_middleware_request_head_t *head,
                                               weir_answer_t *answer) {
  *answer = judge(head);
}

// The plan does not ask for it.
void exports_weir_plugin_middleware_on_response(weir_list_u8_t *state, exports_weir_plugin_middleware_response_head_t *head,
                                                exports_weir_plugin_middleware_response_verdict_t *verdict) {
  (void)state, (void)head;
  *verdict = (exports_weir_plugin_middleware_response_verdict_t){0};
}

static list_t lower_texts(json_t array) {
  list_t list = {json_texts(array), json_count(array)};
  for (size_t i = 0; i < list.count; i++) {
    for (size_t at = 0; at < list.texts[i].len; at++) {
      uint8_t *byte = &list.texts[i].ptr[at];
      if (*byte >= 'A' && *byte <= 'Z') *byte += 32;
    }
  }
  return list;
}

static bool is_header_name(weir_string_t name) {
  for (size_t i = 0; i < name.len; i++) {
    uint8_t byte = name.ptr[i];
    bool letter = (byte >= 'a' && byte <= 'z') || (byte >= '0' && byte <= '9');
    if (byte == 0 || (!letter && !strchr("!#$%&'*+-.^_`|~", byte))) return false;
  }
  return name.len > 0;
}

// What is wrong with them, or null.
static const char *read_options(json_t config) {
  bots = lower_texts(json_member(config, "userAgents"));
  welcome = lower_texts(json_member(config, "except"));
  required = lower_texts(json_member(config, "requiredHeaders"));
  deny = !weir_same(json_text(json_member(config, "action")), weir_text("tag"));
  if (bots.count == 0 && required.count == 0) {
    return "find bots without `userAgents` and `requiredHeaders`: set one of them";
  }
  if (bots.count > ENTRIES_AT_MOST || welcome.count > ENTRIES_AT_MOST || required.count > HEADERS_AT_MOST) {
    return "use lists that long: at most 200 parts of user agents, and 20 headers";
  }
  for (size_t i = 0; i < bots.count + welcome.count; i++) {
    weir_string_t part = i < bots.count ? bots.texts[i] : welcome.texts[i - bots.count];
    if (part.len == 0) return "use an empty text in `userAgents` or `except`: it is in every user agent";
  }
  for (size_t i = 0; i < required.count; i++) {
    if (!is_header_name(required.texts[i])) return "use a text in `requiredHeaders` that is no header name";
  }
  return NULL;
}

static bool has_one_of(list_t parts, weir_plugin_types_header_value_t text) {
  for (size_t i = 0; i < parts.count; i++) {
    if (weir_contains(text.ptr, text.len, parts.texts[i])) return true;
  }
  return false;
}

// A request without a user agent is that of no browser, if user agents are what is looked at.
static bool is_bot(const exports_weir_plugin_middleware_request_head_t *head) {
  weir_plugin_types_option_header_value_t agent = head->headers.ptr[0];
  if (agent.is_some && has_one_of(welcome, agent.val)) return false;
  if (bots.count > 0 && (!agent.is_some || has_one_of(bots, agent.val))) return true;
  for (size_t i = 1; i < head->headers.len; i++) {
    if (!head->headers.ptr[i].is_some) return true;
  }
  return false;
}

static weir_answer_t judge(const exports_weir_plugin_middleware_request_head_t *head) {
  if (!is_bot(head)) return weir_pass();
  if (deny) return weir_reply(403, "Forbidden");
  return weir_set_header(weir_text("x-bot"), weir_text("1"));
}
