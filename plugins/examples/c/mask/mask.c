// Masks words in the responses of servers as they flow: a filter of bodies.

#include <string.h>

#include "weir_plugin.h"

static const char *schema =
    "{\"type\": \"object\", \"additionalProperties\": false, \"required\": [\"words\"], \"properties\": {"
    "\"words\": {\"type\": \"array\", \"items\": {\"type\": \"string\"},"
    " \"description\": \"what to mask, letter by letter as it is written\"}}}";

// Each word costs time at each byte.
enum { WORDS_AT_MOST = 20, BYTES_AT_MOST = 64 };

// The options, of this instance.
static weir_string_t *words;
static size_t count, longest;

void exports_weir_plugin_description_describe(exports_weir_plugin_description_about_t *about) {
  *about = (exports_weir_plugin_description_about_t){
      .name = weir_text("mask"),
      .version = weir_text("0.1.0"),
      .summary = weir_text("Masks words in the text of responses"),
      .config_schema = weir_text(schema),
  };
}

static const char *read_words(json_t array) {
  words = json_texts(array);
  count = json_count(array);
  longest = 0;
  if (count == 0 || count > WORDS_AT_MOST) return "use `words`: name 1 to 20 of them";
  for (size_t i = 0; i < count; i++) {
    if (words[i].len == 0 || words[i].len > BYTES_AT_MOST) return "use a word in `words` that has not 1 to 64 bytes";
    if (words[i].len > longest) longest = words[i].len;
  }
  return NULL;
}

static exports_weir_plugin_middleware_fixed_edit_t without(const char *header) {
  exports_weir_plugin_middleware_fixed_edit_t edit = {0};
  edit.edit.tag = WEIR_PLUGIN_TYPES_HEADER_EDIT_REMOVE;
  edit.edit.val.remove = weir_text(header);
  return edit;
}

bool exports_weir_plugin_middleware_init(weir_string_t *config, exports_weir_plugin_middleware_plan_t *plan,
                                         exports_weir_plugin_middleware_error_t *error) {
  const char *problem = read_words(json_member(json_of(*config), "words"));
  if (problem) {
    *error = weir_invalid_config(problem);
    return false;
  }
  // Nobody decodes what a server compresses, and a part of a body may begin within a word: such are not asked for.
  exports_weir_plugin_middleware_fixed_edit_t *edits = weir_take(2 * sizeof *edits);
  edits[0] = without("accept-encoding");
  edits[1] = without("range");
  weir_string_t *headers = weir_take(2 * sizeof *headers);
  headers[0] = weir_text("content-type");
  headers[1] = weir_text("content-encoding");
  *plan = (exports_weir_plugin_middleware_plan_t){
      .phases = EXPORTS_WEIR_PLUGIN_MIDDLEWARE_PHASES_RESPONSE,
      .request_edits = {edits, 2},
      .response_headers = {headers, 2},
  };
  return true;
}

// The plan does not ask for it.
void exports_weir_plugin_middleware_on_request(exports_weir_plugin_middleware_request_head_t *head,
                                               weir_answer_t *answer) {
  (void)head;
  *answer = weir_pass();
}

void exports_weir_plugin_middleware_on_response(weir_list_u8_t *state, exports_weir_plugin_middleware_response_head_t *head,
                                                exports_weir_plugin_middleware_response_verdict_t *verdict) {
  (void)state;
  *verdict = (exports_weir_plugin_middleware_response_verdict_t){0};
  weir_plugin_types_option_header_value_t type = head->headers.ptr[0], encoding = head->headers.ptr[1];
  if (!type.is_some || type.val.len < 5 || memcmp(type.val.ptr, "text/", 5) != 0 || encoding.is_some) return;
  // It is the tag of the text as it was.
  weir_plugin_types_header_edit_t *edit = weir_take(sizeof *edit);
  edit->tag = WEIR_PLUGIN_TYPES_HEADER_EDIT_REMOVE;
  edit->val.remove = weir_text("etag");
  verdict->tag = EXPORTS_WEIR_PLUGIN_MIDDLEWARE_RESPONSE_VERDICT_EDIT;
  verdict->val.edit.headers.ptr = edit;
  verdict->val.edit.headers.len = 1;
  // A filter begins with a state, and this one needs none.
  verdict->val.edit.filter.is_some = true;
}

// The end of what has come, which may be the beginning of a word. An instance has one filter at a time, so this is its.
struct exports_weir_plugin_body_filter_filter_t {
  uint8_t bytes[BYTES_AT_MOST];
  size_t length;
};
static exports_weir_plugin_body_filter_filter_t kept;

exports_weir_plugin_body_filter_own_filter_t exports_weir_plugin_body_filter_constructor_filter(
    exports_weir_plugin_body_filter_direction_t direction, weir_list_u8_t *state) {
  (void)direction, (void)state;
  kept.length = 0;
  return exports_weir_plugin_body_filter_filter_new(&kept);
}

void exports_weir_plugin_body_filter_filter_destructor(exports_weir_plugin_body_filter_filter_t *filter) { (void)filter; }

static void mask(uint8_t *text, size_t length) {
  for (size_t at = 0; at < length; at++) {
    for (size_t i = 0; i < count; i++) {
      bool fits = words[i].len <= length - at;
      if (fits && memcmp(text + at, words[i].ptr, words[i].len) == 0) memset(text + at, '*', words[i].len);
    }
  }
}

bool exports_weir_plugin_body_filter_method_filter_chunk(exports_weir_plugin_body_filter_borrow_filter_t filter,
                                                         weir_list_u8_t *bytes, weir_list_u8_t *answer,
                                                         exports_weir_plugin_body_filter_error_t *error) {
  (void)error;
  size_t length = filter->length + bytes->len;
  uint8_t *text = weir_take(length);
  memcpy(text, filter->bytes, filter->length);
  memcpy(text + filter->length, bytes->ptr, bytes->len);
  mask(text, length);
  filter->length = length < longest - 1 ? length : longest - 1;
  memcpy(filter->bytes, text + length - filter->length, filter->length);
  *answer = (weir_list_u8_t){text, length - filter->length};
  return true;
}

bool exports_weir_plugin_body_filter_method_filter_end(
    exports_weir_plugin_body_filter_borrow_filter_t filter, exports_weir_plugin_body_filter_list_header_t *trailers,
    exports_weir_plugin_body_filter_tuple2_list_u8_list_header_t *answer, exports_weir_plugin_body_filter_error_t *error) {
  (void)error;
  *answer = (exports_weir_plugin_body_filter_tuple2_list_u8_list_header_t){{filter->bytes, filter->length}, *trailers};
  return true;
}
