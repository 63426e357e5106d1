// Puts a header of its own on every request: `x-plugin-name`, with the text of the configuration.

#include "weir_plugin.h"

static const char *schema =
    "{\"type\": \"object\","
    " \"properties\": {\"text\": {\"type\": \"string\", \"description\": \"what the header says\"}},"
    " \"required\": [\"text\"],"
    " \"additionalProperties\": false}";

// Of this instance. The host makes several, and calls each for one request at a time.
static weir_string_t text;

void exports_weir_plugin_description_describe(exports_weir_plugin_description_about_t *about) {
  *about = (exports_weir_plugin_description_about_t){
      .name = weir_text("pluginName"),
      .version = weir_text("0.1.0"),
      .summary = weir_text("Puts a header on every request"),
      .config_schema = weir_text(schema),
  };
}

bool exports_weir_plugin_middleware_init(weir_string_t *config, exports_weir_plugin_middleware_plan_t *plan,
                                         exports_weir_plugin_middleware_error_t *error) {
  text = json_text(json_member(json_of(*config), "text"));
  if (!weir_is_header_value(text)) {
    *error = weir_invalid_config("use `text` as a header: it has a line break or control character");
    return false;
  }
  *plan = weir_plan(NULL, 0);
  return true;
}

void exports_weir_plugin_middleware_on_request(exports_weir_plugin_middleware_request_head_t *head,
                                               weir_answer_t *answer) {
  (void)head;
  *answer = weir_set_header(weir_text("x-plugin-name"), text);
}

// The plan does not ask for it.
void exports_weir_plugin_middleware_on_response(weir_list_u8_t *state, exports_weir_plugin_middleware_response_head_t *head,
                                                exports_weir_plugin_middleware_response_verdict_t *verdict) {
  (void)state, (void)head;
  *verdict = (exports_weir_plugin_middleware_response_verdict_t){0};
}
